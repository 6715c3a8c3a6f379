//! `cargo xtask new capability`.

use super::{Edit, changed, check_name, identifier, insert_sorted, title, write_all};
use crate::shell::{Failure, Result, bold, say};
use std::path::Path;

/// Writes the interface and the host's module, and names both in the two lists of capabilities.
pub fn new_capability(root: &Path, name: &str) -> Result<()> {
    check_name(name)?;
    let ident = identifier(name);
    let list = root.join("host/src/capability.rs");
    let world = root.join("wit/world.wit");
    let fill = |template: &str| fill(template, name);
    let edits = [
        Edit::new(
            root.join(format!("wit/deps/exprsn-{name}/{name}.wit")),
            fill(include_str!(
                "../../templates/capability/capability.wit.template"
            )),
        ),
        Edit::new(
            root.join(format!("host/src/capability/{ident}/mod.rs")),
            fill(include_str!("../../templates/capability/mod.rs.template")),
        ),
        changed(list, |text| with_capability(text, name))?,
        changed(world, |text| with_import(text, name))?,
    ];
    write_all(root, &edits)?;
    say(&format!(
        "{} can be granted. It has unit tests; still to write, `coverage.rs` asks for them:\n  \
         host/tests/guests/{name}/  a guest that imports exprsn:{name}/lookup@1.0.0\n  \
         host/tests/all/{ident}.rs  its test: granted, not granted, limit, backend down",
        bold(&format!("[grants.{ident}]"))
    ));
    Ok(())
}

fn fill(template: &str, name: &str) -> String {
    template
        .replace("{{name}}", name)
        .replace("{{ident}}", &identifier(name))
        .replace("{{title}}", &title(name))
        .replace("{{type}}", &type_name(name))
}

/// `key-value` as a Rust type: `KeyValue`.
fn type_name(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}

/// Adds the capability to the host's one list.
fn with_capability(list: &str, name: &str) -> Result<String> {
    let ident = identifier(name);
    if list.contains(&format!("    {ident}: ")) {
        return Err(
            Failure::new(format!("there is a capability {ident:?} already"))
                .remedy("choose another name"),
        );
    }
    let line = format!("    {ident}: {} in [\"exprsn:{name}/\"],", type_name(name));
    let is_entry =
        |text: &str| text.starts_with("    ") && text.contains(" in [\"") && text.ends_with("\"],");
    insert_sorted(list, &line, is_entry)
        .ok_or_else(|| Failure::new("host/src/capability.rs has no `capabilities!` list"))
}

/// Adds the import to the world of everything that the host can lend.
fn with_import(world: &str, name: &str) -> Result<String> {
    let line = format!("  import exprsn:{name}/lookup@1.0.0;");
    let inserted = insert_sorted(world, &line, |text| text.starts_with("  import exprsn:"));
    inserted.ok_or_else(|| Failure::new("wit/world.wit imports no exprsn interface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_stays_sorted_and_unique() {
        let list = "capabilities! {\n    ca: Ca in [\"exprsn:ca/\"],\n    sql: Sql in [\"exprsn:sql/\"],\n}\n";
        let longer = with_capability(list, "key-value").unwrap();
        let expected =
            "[\"exprsn:ca/\"],\n    key_value: KeyValue in [\"exprsn:key-value/\"],\n    sql:";
        assert!(longer.contains(expected), "{longer}");
        assert!(with_capability(&longer, "key-value").is_err());
    }

    #[test]
    fn the_import_goes_among_its_like() {
        let world = "world platform {\n  import wasi:a/b@0.3.0;\n  import exprsn:sql/database@1.0.0;\n}\nworld x {\n}\n";
        let longer = with_import(world, "geo").unwrap();
        assert!(
            longer.contains("@0.3.0;\n  import exprsn:geo/lookup@1.0.0;\n  import exprsn:sql"),
            "{longer}"
        );
    }

    #[test]
    fn templates_are_filled() {
        for template in [
            include_str!("../../templates/capability/capability.wit.template"),
            include_str!("../../templates/capability/mod.rs.template"),
        ] {
            assert!(!fill(template, "key-value").contains("{{"));
        }
    }
}
