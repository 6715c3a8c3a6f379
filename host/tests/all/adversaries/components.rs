//! Components that are bombs, or that lie about themselves: refused with a clear error, and nothing else happens.

use super::while_innocents_are_served;
use crate::harness::{Platform, Setup};
use std::fmt::Write as _;

const MANIFEST: &str = "name = \"exprsn-bomb\"\nversion = \"1.0.0\"\nport = 3190\n
[[route]]\nmethods = [\"GET\"]\npath = \"/{*any}\"\naccess = \"public\"\n";

/// A component with a handler of HTTP; `outer` stands beside it, `core` in its module.
fn handler(outer: &str, core: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
  (import "wasi:http/types@0.2.3" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  {outer}
  (core module $handler {core} (func (export "handle") (param i32 i32)))
  (core instance $handler (instantiate $handler))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $handler "handle")))
  (instance $exported (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.3" (instance $exported)))"#
    );
    wat::parse_str(text).expect("the text is a component")
}

fn leb(mut value: usize, bytes: &mut Vec<u8>) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return bytes.push(byte);
        }
        bytes.push(byte | 0x80);
    }
}

/// The component with a further custom section.
fn with_section(mut component: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    leb(name.len(), &mut content);
    content.extend(name.as_bytes());
    content.extend(data);
    component.push(0);
    leb(content.len(), &mut component);
    component.extend(content);
    component
}

fn with_manifest(component: Vec<u8>) -> Vec<u8> {
    with_section(component, "exprsn:manifest", MANIFEST.as_bytes())
}

/// Starts a platform with the component and answers what was said, as an error where it did not become ready.
fn started_with(component: &[u8], config: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bomb.wasm");
    std::fs::write(&file, component).expect("written");
    let path = file.display();
    let config = format!("{config}\n[service.exprsn-bomb]\ncomponent = \"{path}\"\n");
    let platform = Platform::prepare(&Setup {
        config: &config,
        ..Setup::default()
    });
    match platform.try_restart() {
        Ok(()) => Ok(platform.log()),
        Err(printed) => Err(format!("{printed}\n{}", platform.log())),
    }
}

fn refused_with(component: &[u8], config: &str) -> String {
    started_with(component, config).expect_err("it was not refused")
}

#[track_caller]
fn expect_refusal(component: &[u8], text: &str) {
    let told = refused_with(component, "");
    assert!(told.contains(text), "no `{text}` in {told}");
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn a_start_function_without_end_is_stopped_before_the_service_is_live() {
    let looping = handler("", "(func $loop (loop $again (br $again))) (start $loop)");
    let told = refused_with(&with_manifest(looping), "[limits]\ncpu_ms_max = 200");
    assert!(told.contains("exceeded its limit cpu_ms_max"), "{told}");
}

#[test]
fn tables_that_grow_without_end_are_stopped_at_their_limit() {
    let growing = handler(
        "",
        "(table $table 0 funcref)
         (func $grow
           (loop $again (br_if $again (i32.ne (table.grow $table (ref.null func) (i32.const 999)) (i32.const -1))))
           unreachable)
         (start $grow)",
    );
    expect_refusal(
        &with_manifest(growing),
        "exceeded its limit table_elements_max",
    );
}

#[test]
fn memories_and_tables_count_together() {
    // Two memories of 40 MiB are more than 64 MiB, though each is less.
    let outer = "(core module $more (memory 640)) (core instance (instantiate $more)) (core instance (instantiate $more))";
    expect_refusal(
        &with_manifest(handler(outer, "")),
        "exceeded its limit memory_bytes_max",
    );
}

#[test]
fn a_component_of_too_many_parts_is_refused_by_the_limit_that_it_passes() {
    let many = |count: usize, module: &str| {
        let instances = "(core instance (instantiate $part))\n".repeat(count);
        with_manifest(handler(
            &format!("(core module $part {module}) {instances}"),
            "",
        ))
    };
    expect_refusal(
        &many(5, "(memory 1)"),
        "5 memories, and its limit memories_max is 4",
    );
    expect_refusal(
        &many(21, "(table 1 funcref)"),
        "21 tables, and its limit tables_max is 20",
    );
    expect_refusal(
        &many(1, "(memory 1025)"),
        "and its limit memory_bytes_max is 67108864",
    );
    expect_refusal(&many(40, ""), "exceeded its limit core_instances_max");
    expect_refusal(&many(900, ""), "901 core module instances");
}

#[test]
fn thousands_of_imports_are_refused_before_anything_is_compiled() {
    let imports = (0..1_200).fold(String::new(), |mut text, index| {
        let _ = write!(text, "(import \"i{index}\" (func))");
        text
    });
    let component = wat::parse_str(format!("(component {imports})")).expect("a component");
    expect_refusal(&with_manifest(component), "more than 1000 imports");
}

#[test]
fn components_within_components_do_not_bring_the_host_down() {
    let empty = wat::parse_str("(component)").expect("a component");
    let (header, mut nested) = (empty[..8].to_vec(), empty.clone());
    for _ in 0..20_000 {
        let mut outer = header.clone();
        outer.push(4);
        leb(nested.len(), &mut outer);
        outer.extend(nested);
        nested = outer;
    }
    // It may be refused or, since nothing in it does anything, run.
    let told = started_with(&with_manifest(nested), "").unwrap_or_else(|told| told);
    assert!(
        told.contains("is live") || told.contains("cannot be"),
        "{told}"
    );
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn instances_that_multiply_are_refused() {
    // Ten instances of what has ten instances of what … : six levels are a million core instances.
    let mut text = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..=6 {
        let below = level - 1;
        let instances = format!("(instance (instantiate $c{below}))").repeat(10);
        text = format!("(component $c{level} {text} {instances})");
    }
    let component = wat::parse_str(text.replacen("$c6", "", 1)).expect("a component");
    assert!(component.len() < 2_000, "the file is small");
    expect_refusal(&with_manifest(component), "cannot be loaded");
}

/// A small component whose compilation has no end that anybody would wait for: tens of thousands of variables that all live
/// through nested loops.
fn bomb() -> Vec<u8> {
    let (locals, depth) = (20_000, 200);
    let mut body = String::new();
    for index in 0..locals {
        let _ = write!(
            body,
            "(local.set {index} (i64.add (local.get {}) (i64.const 1)))",
            (index * 7 + 1) % locals
        );
    }
    let opened = "(loop ".repeat(depth);
    let closed = "(br_if 0 (i64.eqz (local.get 0))))".repeat(depth);
    let core = format!(
        "(func (export \"bomb\") (local {}) {opened} {body} {closed})",
        "i64 ".repeat(locals)
    );
    let component = with_manifest(handler("", &core));
    assert!(
        component.len() < 1 << 20,
        "the file is small: {}",
        component.len()
    );
    component
}

#[test]
fn a_small_file_that_is_a_large_compilation_is_given_up() {
    let limits = "[platform]\ncompile_cpu_s_max = 2\ncompile_memory_bytes_max = 1073741824";
    let told = refused_with(&bomb(), limits);
    assert!(
        told.contains("compile_memory_bytes_max or compile_cpu_s_max"),
        "{told}"
    );
}

#[test]
fn a_bomb_that_is_installed_is_given_up_while_others_are_served() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bomb()).expect("written");
    while_innocents_are_served(|platform| {
        let mut install = platform.command(&["component", "install", "--yes"]);
        let output = install.arg("--allow-unsigned").arg(file.path()).output();
        let output = output.expect("the program runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("compile_cpu_s_max"), "{told}");
    });
}

#[test]
fn sections_that_lie_are_refused_by_name() {
    let plain = || handler("", "");
    expect_refusal(
        &with_section(plain(), "exprsn:manifest", b"name = \"\xff\xfe\""),
        "`exprsn:manifest` section is not UTF-8",
    );
    expect_refusal(
        &with_section(plain(), "exprsn:manifest", &vec![b'#'; 300_000]),
        "has 300000 bytes, and 262144 are allowed",
    );
    expect_refusal(
        &with_manifest(with_manifest(plain())),
        "two `exprsn:manifest` sections",
    );
    expect_refusal(
        &with_section(
            plain(),
            "exprsn:manifest",
            "a = [".repeat(20_000).as_bytes(),
        ),
        "component.toml is not valid",
    );
    let greedy = format!("{MANIFEST}\n[limits]\nmemory_bytes_max = 10000000000\n");
    expect_refusal(
        &with_section(plain(), "exprsn:manifest", greedy.as_bytes()),
        "it may ask for 268435456 at most",
    );
    let mut cut = with_manifest(plain());
    cut.truncate(cut.len() - 10);
    expect_refusal(&cut, "not a WebAssembly component, or corrupt");
    let mut long = plain();
    long.extend([0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    expect_refusal(&long, "not a WebAssembly component, or corrupt");
    let module = wat::parse_str("(module)").expect("a module");
    expect_refusal(
        &with_manifest(module),
        "a core WebAssembly module, not a component",
    );
}
