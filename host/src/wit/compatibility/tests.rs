//! A table of changes: which break what was published, and which do not.

use super::*;
use crate::wit::{self, Sources};

const PUBLISHED: &str = "
package exprsn:thing@1.0.0;

interface types {
  variant error { invalid(string), not-found }
  record point { x: u32, y: u32 }
  enum colour { red, green }
  flags rights { read, write }
  type points = list<point>;
}

interface store {
  use types.{error, point, points};
  record bucket { left: u64 }
  get: async func(key: string) -> result<option<point>, error>;
  all: func() -> points;
  resource lock {
    constructor(key: string);
    take: async func() -> result<_, error>;
    steal: static func(lock: borrow<lock>) -> bucket;
  }
}

interface worker { use types.{point}; handle: async func(point: point); }

world imports { import store; }
world guest { export worker; }
";

fn parse(text: &str) -> Resolve {
    let sources = Sources::from([("thing/thing.wit".to_owned(), text.to_owned())]);
    wit::resolve(&sources).unwrap_or_else(|error| panic!("{error}"))
}

/// What breaks when `from` becomes `to`.
fn change(from: &str, to: &str) -> Vec<String> {
    assert!(PUBLISHED.contains(from), "no `{from}` to change");
    broken(&parse(PUBLISHED), &parse(&PUBLISHED.replacen(from, to, 1)))
}

#[test]
fn additions_and_moves_are_compatible() {
    let changes = [
        ("", ""),
        ("thing@1.0.0", "thing@1.4.2"),
        (
            "interface worker",
            "interface more { f: func(); }\ninterface worker",
        ),
        ("  all:", "  one: func() -> point;\n  all:"),
        ("    take:", "    leave: async func();\n    take:"),
        (
            "  enum colour",
            "  record line { a: point, b: point }\n  enum colour",
        ),
        ("import store;", "import store; import types;"),
        ("world guest", "world other { import worker; }\nworld guest"),
        ("interface types {", "/// Documented.\ninterface types {"),
        // A type moves, and is used from where it was.
        (
            "  record bucket { left: u64 }\n",
            "  use elsewhere.{bucket};\n",
        ),
    ];
    for (from, to) in changes {
        let to = PUBLISHED.replacen(from, to, 1);
        let elsewhere = if to.contains("use elsewhere") {
            "interface elsewhere { record bucket { left: u64 } }"
        } else {
            ""
        };
        let present = format!("{to}{elsewhere}");
        let broken = broken(&parse(PUBLISHED), &parse(&present));
        assert_eq!(broken, Vec::<String>::new(), "{from} → {to}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of changes")]
fn removals_and_changes_are_named() {
    let changes = [
        (
            "thing@1.0.0",
            "thing@2.0.0",
            "exprsn:thing@1/store was removed",
        ),
        (
            "interface worker {",
            "interface laborer {",
            "exprsn:thing@1/worker was removed",
        ),
        (
            "  all: func() -> points;\n",
            "",
            "exprsn:thing@1/store.all was removed",
        ),
        (
            "get: async func",
            "get: func",
            "store.get was `async func(key: string) -> result<option<point>, error>` and is now `func(",
        ),
        (
            "(key: string) -> result",
            "(name: string) -> result",
            "store.get was",
        ),
        (
            "(key: string) -> result",
            "(key: string, more: u8) -> result",
            "store.get was",
        ),
        ("-> points", "-> list<point>", "store.all was"),
        ("x: u32, ", "", "types.point.x was removed"),
        (
            "x: u32, ",
            "x: u64, ",
            "types.point.x was `u32` and is now `u64`",
        ),
        (
            "y: u32 }",
            "y: u32, z: u32 }",
            "types.point was `record { x, y }` and is now `record { x, y, z }`",
        ),
        ("x: u32, y: u32", "y: u32, x: u32", "types.point was"),
        (", not-found }", " }", "types.error.not-found was removed"),
        (", not-found }", ", not-found, other }", "types.error was"),
        (
            "invalid(string)",
            "invalid",
            "types.error.invalid was `string` and is now `nothing`",
        ),
        (
            "red, green",
            "red",
            "types.colour was `enum { red, green }`",
        ),
        ("read, write", "read, write, append", "types.rights was"),
        ("list<point>", "list<u32>", "types.points was"),
        (
            "    take: async func() -> result<_, error>;\n",
            "",
            "store.lock.take was removed",
        ),
        (
            "steal: static func(lock: borrow<lock>)",
            "steal: func()",
            "store.lock.steal was `static func",
        ),
        (
            "constructor(key: string)",
            "constructor(key: u32)",
            "store.lock.constructor was",
        ),
        (
            "import store;",
            "",
            "world exprsn:thing@1/imports: import exprsn:thing@1/store was removed",
        ),
        (
            "export worker;",
            "export worker; export store;",
            "world exprsn:thing@1/guest was",
        ),
        (
            "handle: async func(point: point);",
            "handle: async func(point: point); stop: func();",
            "exprsn:thing@1/worker as guests export it was",
        ),
        (
            "world guest { export worker; }",
            "",
            "world exprsn:thing@1/guest was removed",
        ),
    ];
    for (from, to, expected) in changes {
        // Every use of a renamed interface is renamed with it.
        let to = if from == "interface worker {" {
            PUBLISHED
                .replace(from, to)
                .replace("export worker", "export laborer")
        } else {
            assert!(PUBLISHED.contains(from), "no `{from}` to change");
            PUBLISHED.replacen(from, to, 1)
        };
        let broken = broken(&parse(PUBLISHED), &parse(&to));
        assert!(
            broken.iter().any(|item| item.contains(expected)),
            "{from} → {expected}: {broken:?}"
        );
    }
}

#[test]
fn a_resource_stays_in_its_interface() {
    let moved = PUBLISHED
        .replace(
            "  resource lock {",
            "  use locks.{lock as held};\n  resource lock {",
        )
        .replace(
            "interface worker",
            "interface locks { resource lock; }\ninterface worker",
        );
    assert_eq!(
        broken(&parse(PUBLISHED), &parse(&moved)),
        Vec::<String>::new()
    );
    let own = "resource lock {
    constructor(key: string);
    take: async func() -> result<_, error>;
    steal: static func(lock: borrow<lock>) -> bucket;
  }";
    let broken = change(
        own,
        "use locks.{lock};\n}\ninterface locks { resource lock;",
    );
    assert!(
        broken
            .iter()
            .any(|item| item.contains("store.lock was `resource of exprsn:thing@1/store`")),
        "{broken:?}"
    );
}
