//! `cargo xtask wit-twins`: the synchronous twins of our interfaces, for components whose tools know no async functions.
//!
//! The twin of `database` is `database-sync`: the same functions without `async`, over the same types and, in the host,
//! the same implementation. What takes or gives a stream or a future has no synchronous form and is left out.
//!
//! **Invariant:** a twin is what this writes, nothing else; `cargo xtask tidy` compares.

use crate::shell::{About, Failure, Result, entries, file_name, say, write_if_changed};
use crate::wit::{Item, parse, words};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Interfaces without a twin, and packages (`exprsn:platform/`) all of whose interfaces have none.
const WITHOUT_TWIN: [&str; 2] = [
    // Granted to exprsn-ca alone, which is part of the platform.
    "exprsn:ca/authority",
    // For the services that show or manage the platform, which are part of it.
    "exprsn:platform/",
];

/// Ends the name of a twin, of its world and of the file that they are in.
const SUFFIX: &str = "-sync";

/// Writes the twins that are not as they should be.
pub fn wit_twins(root: &Path) -> Result<()> {
    let mut changed = 0;
    for (path, text) in twins(root)? {
        if text.is_empty() {
            if path.exists() {
                std::fs::remove_file(&path).about("removing", &path)?;
                say(&format!("removed {}", path.display()));
            }
        } else if write_if_changed(&path, text.as_bytes())? {
            say(&format!("wrote {}", path.display()));
            changed += 1;
        }
    }
    if changed == 0 {
        say("every twin is as it should be");
    }
    Ok(())
}

/// Names every twin that is not what `wit_twins` would write.
pub fn stale(root: &Path) -> Result<Vec<String>> {
    let twins = twins(root)?.into_iter();
    let stale = twins.filter(|(path, text)| {
        let held = std::fs::read_to_string(path).unwrap_or_default();
        held != *text
    });
    Ok(stale
        .map(|(path, _)| {
            format!(
                "{}: is not the twin of its interfaces any more; run `cargo xtask wit-twins`",
                path.display()
            )
        })
        .collect())
}

/// Every file of twins with what belongs into it; empty where it must not exist.
fn twins(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut twins = Vec::new();
    for folder in entries(&root.join("wit/deps"))? {
        if !file_name(&folder).starts_with("exprsn-") {
            continue;
        }
        for path in entries(&folder)? {
            let name = file_name(&path);
            let Some(stem) = name.strip_suffix(".wit") else {
                continue;
            };
            if stem.ends_with(SUFFIX) {
                continue;
            }
            let text = std::fs::read_to_string(&path).about("reading", &path)?;
            let twin = write_twins(&text)
                .map_err(|failure| Failure::new(format!("{}: {failure}", path.display())))?;
            twins.push((folder.join(format!("{stem}{SUFFIX}.wit")), twin));
        }
    }
    Ok(twins)
}

/// The file of twins for the file that contains `text`.
fn write_twins(text: &str) -> Result<String> {
    let items = parse(text)?;
    let package = items.iter().find(|item| item.keyword() == "package");
    let package =
        package.ok_or_else(|| Failure::new("it does not begin with a package declaration"))?;
    let source = Source {
        package: package.head["package".len()..].trim_start(),
        streaming: streaming_types(&items)?,
        interfaces: of_keyword(&items, "interface"),
    };
    let mut blocks = Vec::new();
    for interface in &source.interfaces {
        blocks.extend(source.twin(interface)?);
    }
    if blocks.is_empty() {
        return Ok(String::new());
    }
    for world in of_keyword(&items, "world") {
        blocks.extend(source.world(world)?);
    }
    // No comment before it: WIT takes that for the package's documentation, which stands in one file only.
    Ok(format!("{};\n\n{}", package.head, blocks.join("\n")))
}

fn of_keyword<'a>(items: &'a [Item], keyword: &str) -> Vec<&'a Item> {
    let items = items.iter();
    items.filter(|item| item.keyword() == keyword).collect()
}

/// The names of the types that consist of streams or futures, themselves or through others, and of these two.
fn streaming_types(items: &[Item]) -> Result<BTreeSet<String>> {
    let mut types = Vec::new();
    for interface in of_keyword(items, "interface") {
        types.extend(interface.items()?.into_iter().filter(is_plain_type));
    }
    let mut streaming = BTreeSet::from(["stream".to_owned(), "future".to_owned()]);
    loop {
        let known = streaming.len();
        for item in &types {
            if streaming.iter().any(|name| item.mentions(name)) {
                streaming.insert(item.name().to_owned());
            }
        }
        if streaming.len() == known {
            return Ok(streaming);
        }
    }
}

/// A type that is not a resource.
fn is_plain_type(item: &Item) -> bool {
    matches!(
        item.keyword(),
        "type" | "record" | "variant" | "enum" | "flags"
    )
}

/// A file of asynchronous interfaces.
struct Source<'a> {
    /// `exprsn:sql@1.0.0`.
    package: &'a str,
    /// See [`streaming_types`].
    streaming: BTreeSet<String>,
    interfaces: Vec<&'a Item>,
}

/// What of an interface has a synchronous form.
struct Kept {
    uses: Vec<Item>,
    plain_types: Vec<Item>,
    /// Functions, and resources that hold the methods kept.
    items: Vec<(Item, Vec<Item>)>,
    left_out: Vec<String>,
    is_async: bool,
}

impl Source<'_> {
    /// What becomes of `interface`.
    fn kept(&self, interface: &Item) -> Result<Kept> {
        let mut kept = Kept {
            uses: Vec::new(),
            plain_types: Vec::new(),
            items: Vec::new(),
            left_out: Vec::new(),
            is_async: false,
        };
        for item in interface.items()? {
            if item.is_function() {
                self.keep(item, "", &mut kept);
            } else if item.keyword() == "use" {
                kept.uses.push(item);
            } else if item.keyword() == "resource" {
                let methods = item.items()?;
                let prefix = format!("{}.", item.name());
                kept.items.push((item, Vec::new()));
                for method in methods {
                    self.keep(method, &prefix, &mut kept);
                }
            } else {
                kept.plain_types.push(item);
            }
        }
        Ok(kept)
    }

    /// Keeps a function, or a method of the resource kept last, unless it streams.
    fn keep(&self, function: Item, resource: &str, kept: &mut Kept) {
        kept.is_async |= words(&function.head).any(|word| word == "async");
        if self.streaming.iter().any(|name| function.mentions(name)) {
            let name = function.keyword().trim_start_matches('%');
            kept.left_out.push(format!("`{resource}{name}`"));
        } else if resource.is_empty() {
            kept.items.push((function, Vec::new()));
        } else if let Some((_, methods)) = kept.items.last_mut() {
            methods.push(function);
        }
    }

    /// Whether the interface `name` of this file has a twin.
    fn has_twin(&self, name: &str) -> Result<bool> {
        let package = self.package.split('@').next().unwrap_or_default();
        let full = format!("{package}/{name}");
        let excluded = |without: &&str| {
            full == **without || (without.ends_with('/') && full.starts_with(*without))
        };
        if WITHOUT_TWIN.iter().any(excluded) {
            return Ok(false);
        }
        let Some(interface) = self.interfaces.iter().find(|item| item.name() == name) else {
            return Ok(false);
        };
        let kept = self.kept(interface)?;
        let callable =
            |(item, methods): &(Item, Vec<Item>)| item.is_function() || !methods.is_empty();
        Ok(kept.is_async && kept.items.iter().any(callable))
    }

    /// The twin of `interface`, if it has one.
    fn twin(&self, interface: &Item) -> Result<Option<String>> {
        let name = interface.name();
        if !self.has_twin(name)? {
            return Ok(None);
        }
        let kept = self.kept(interface)?;
        let needed = |word: &str| {
            let mut texts = kept
                .items
                .iter()
                .flat_map(|(item, methods)| std::iter::once(item).chain(methods))
                .filter(|item| item.is_function());
            texts.any(|item| item.mentions(word))
        };
        if let Some(own) = kept.plain_types.iter().find(|item| needed(item.name())) {
            return Err(Failure::new(format!(
                "interface `{name}` defines `{}` beside async functions, so its twin would have a type of its own",
                own.name()
            ))
            .remedy("move the type to `interface types` and `use types.{…}` it"));
        }
        let mut text = docs(&twin_docs(interface, &kept), "");
        text.push_str(&format!("interface {name}{SUFFIX} {{\n"));
        for item in &kept.uses {
            text.push_str(&self.use_line(item, needed)?);
        }
        for (item, methods) in &kept.items {
            if !text.ends_with("{\n") {
                text.push('\n');
            }
            text.push_str(&written(item, methods));
        }
        text.push_str("}\n");
        Ok(Some(text))
    }

    /// `use types.{…};` with the names that are needed; from the twin, where the interface has one.
    fn use_line(&self, item: &Item, needed: impl Fn(&str) -> bool) -> Result<String> {
        let (from, names) = item.head["use ".len()..]
            .split_once(".{")
            .ok_or_else(|| Failure::new(format!("`{}` names no types", item.head)))?;
        let names = names.trim_end_matches('}').split(',').map(str::trim);
        let names: Vec<&str> = names
            .filter(|name| words(name).last().is_some_and(&needed))
            .collect();
        if names.is_empty() {
            return Ok(String::new());
        }
        let suffix = if self.has_twin(from)? { SUFFIX } else { "" };
        Ok(format!("  use {from}{suffix}.{{{}}};\n", names.join(", ")))
    }

    /// The world with twins in place of their interfaces; none where that changes nothing.
    fn world(&self, world: &Item) -> Result<Option<String>> {
        let mut lines = String::new();
        let mut twins = 0;
        for item in world.items()? {
            let (keyword, name) = (item.keyword(), item.name());
            let known = self.interfaces.iter().find(|known| known.name() == name);
            if self.has_twin(name)? {
                lines.push_str(&format!("  {keyword} {name}{SUFFIX};\n"));
                twins += 1;
            } else if !matches!(known, Some(known) if self.kept(known)?.is_async) {
                lines.push_str(&format!("  {};\n", item.head));
            }
        }
        let text = format!("world {}{SUFFIX} {{\n{lines}}}\n", world.name());
        Ok((twins > 0).then(|| docs(&world.docs, "") + &text))
    }
}

/// What the twin is, then what the interface says of itself.
fn twin_docs(interface: &Item, kept: &Kept) -> Vec<String> {
    let mut docs = vec![format!(
        "/// `{}` for components without async functions: the same functions, one call at a time.",
        interface.name()
    )];
    docs.push("/// Written from it by `cargo xtask wit-twins`.".to_owned());
    if !kept.left_out.is_empty() {
        docs.push("///".to_owned());
        docs.push(format!(
            "/// Left out, because streams and futures have no synchronous form: {}.",
            kept.left_out.join(", ")
        ));
    }
    if !interface.docs.is_empty() {
        docs.push("///".to_owned());
        docs.extend(interface.docs.iter().cloned());
    }
    docs
}

/// A function, or a resource with its methods.
fn written(item: &Item, methods: &[Item]) -> String {
    let mut text = docs(&item.docs, "  ");
    if item.is_function() {
        text.push_str(&format!("  {};\n", synchronous(&item.head)));
    } else if methods.is_empty() {
        text.push_str(&format!("  {};\n", item.head));
    } else {
        text.push_str(&format!("  {} {{\n", item.head));
        for method in methods {
            text.push_str(&docs(&method.docs, "    "));
            text.push_str(&format!("    {};\n", synchronous(&method.head)));
        }
        text.push_str("  }\n");
    }
    text
}

fn synchronous(function: &str) -> String {
    function.replacen("async func", "func", 1)
}

fn docs(lines: &[String], indentation: &str) -> String {
    let lines = lines.iter();
    lines.map(|line| format!("{indentation}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
/// Things.
package exprsn:thing@1.0.0;

interface types {
  variant error { invalid(string), not-found }
  record opened { rows: stream<string> }
}

/// Stores.
interface store {
  use types.{error, opened};
  /// Looks.
  get: async func(key: string) -> result<string, error>;
  size: func() -> u64;
  open: async func() -> opened;
  resource lock {
    take: static async func() -> result<lock, error>;
    watch: async func() -> future<string>;
  }
}

interface users {
  use store.{lock};
  use types.{error};
  holder: async func(of: borrow<lock>) -> string;
}

interface clock { now: func() -> u64; }
interface pipe { listen: async func() -> stream<u8>; }

world imports {
  import store;
  import clock;
  import pipe;
}
world other { import clock; }
";

    const TWIN: &str = "\
package exprsn:thing@1.0.0;

/// `store` for components without async functions: the same functions, one call at a time.
/// Written from it by `cargo xtask wit-twins`.
///
/// Left out, because streams and futures have no synchronous form: `open`, `lock.watch`.
///
/// Stores.
interface store-sync {
  use types.{error};

  /// Looks.
  get: func(key: string) -> result<string, error>;

  size: func() -> u64;

  resource lock {
    take: static func() -> result<lock, error>;
  }
}

/// `users` for components without async functions: the same functions, one call at a time.
/// Written from it by `cargo xtask wit-twins`.
interface users-sync {
  use store-sync.{lock};

  holder: func(of: borrow<lock>) -> string;
}

world imports-sync {
  import store-sync;
  import clock;
}
";

    #[test]
    fn a_twin_is_the_same_without_async_and_streams() {
        assert_eq!(write_twins(SOURCE).unwrap(), TWIN);
    }

    #[test]
    fn a_package_without_async_functions_has_none() {
        let text = "package a:b@1.0.0; interface x { f: func(); } world imports { import x; }";
        assert_eq!(write_twins(text).unwrap(), "");
        let text = "package exprsn:ca@1.0.0; interface authority { f: async func(); }";
        assert_eq!(write_twins(text).unwrap(), "");
    }

    #[test]
    fn a_type_that_the_twin_would_have_to_copy_is_refused() {
        let text =
            "package a:b@1.0.0; interface x { record r { x: u32 } f: async func() -> list<r>; }";
        let failure = write_twins(text).unwrap_err().to_string();
        assert!(
            failure.contains("`x` defines `r`") && failure.contains("interface types"),
            "{failure}"
        );
    }

    #[test]
    fn this_repository_has_twins() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let twins = twins(&root).unwrap();
        let sql = twins
            .iter()
            .find(|(path, _)| path.ends_with("sql-sync.wit"));
        let (_, sql) = sql.unwrap();
        assert!(sql.contains("interface database-sync") && !sql.contains(": async func"));
        assert!(!sql.contains("query-stream:") && sql.contains("`query-stream`"));
        assert_eq!(stale(&root).unwrap(), Vec::<String>::new());
    }
}
