//! The structure of our own WIT files, as far as the synchronous twins need it: items, with the comments before them.
//!
//! It reads what this repository writes, not all of WIT; the host's tests read the same files with the real parser.

use crate::shell::{Failure, Result};

/// `package …;`, `interface … { … }`, `name: func(…);`, `record … { … }`: anything that stands alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Lines before it: `///` comments and `@` attributes, without indentation.
    pub docs: Vec<String>,
    /// Its text up to `;` or `{`, on one line.
    pub head: String,
    /// What stands between its braces.
    pub body: Option<String>,
}

impl Item {
    /// The first word: `interface`, `record`, `use`; for a function its name.
    pub fn keyword(&self) -> &str {
        let end = self.head.find([' ', ':']).unwrap_or(self.head.len());
        &self.head[..end]
    }

    /// The name after the keyword: `database` of `interface database`.
    pub fn name(&self) -> &str {
        let rest = self.head[self.keyword().len()..].trim_start();
        let end = rest.find([' ', ':', '=']).unwrap_or(rest.len());
        &rest[..end]
    }

    /// The items between its braces.
    pub fn items(&self) -> Result<Vec<Item>> {
        parse(self.body.as_deref().unwrap_or_default())
            .map_err(|failure| Failure::new(format!("in `{}`: {failure}", self.head)))
    }

    /// Whether it is `name: func(…)` of any kind.
    pub fn is_function(&self) -> bool {
        self.body.is_none() && words(&self.head).any(|word| word == "func")
            || self.keyword() == "constructor"
    }

    /// Whether `word` is part of its text.
    pub fn mentions(&self, word: &str) -> bool {
        words(&self.head).any(|known| known == word)
            || self.body.as_deref().is_some_and(|body| {
                let code = body
                    .lines()
                    .map(|line| line.split("//").next().unwrap_or(""));
                code.flat_map(words).any(|known| known == word)
            })
    }
}

/// The names and keywords of a piece of WIT; `%list` is `list`.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| !word.is_empty() && *word != "-")
}

/// The items of a file or of what stands between braces.
pub fn parse(text: &str) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut docs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("//") || rest.starts_with('@') {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            if !line.starts_with("//") || line.starts_with("///") {
                docs.push(line.trim_end().to_owned());
            }
            rest = after.trim_start();
            continue;
        }
        let (head, body, after) = item(rest)?;
        items.push(Item {
            docs: std::mem::take(&mut docs),
            head,
            body,
        });
        rest = after.trim_start();
    }
    Ok(items)
}

/// Splits the first item off: its head, its body, and the text after it.
fn item(text: &str) -> Result<(String, Option<String>, &str)> {
    let unfinished = || {
        let line = text.lines().next().unwrap_or_default();
        Failure::new(format!("`{line}` is not closed"))
    };
    // `use x.{y};` and `include x with { y as z };` have braces in their heads.
    let plain = text.starts_with("use ") || text.starts_with("include ");
    let end = text
        .find(|c| c == ';' || (c == '{' && !plain))
        .ok_or_else(unfinished)?;
    let head = text[..end].split_whitespace().collect::<Vec<_>>().join(" ");
    if text[end..].starts_with(';') {
        return Ok((head, None, &text[end + 1..]));
    }
    let close = closing_brace(&text[end..]).ok_or_else(unfinished)? + end;
    let after = text[close + 1..].trim_start_matches(';');
    Ok((head, Some(text[end + 1..close].to_owned()), after))
}

/// Where the brace that opens `text` is closed; comments do not count.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut depth, mut in_comment) = (0usize, false);
    for (at, character) in text.char_indices() {
        match character {
            '\n' => in_comment = false,
            _ if in_comment => {}
            '/' if text[at..].starts_with("//") => in_comment = true,
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
/// The package.
package a:b@1.0.0;

// Not for readers of the interface.
/// Things { in braces.
interface things {
  use types.{error, thing as other};
  /// A resource; with methods.
  resource thing { // }
    open: static async func(
      name: string,
    ) -> result<thing, error>;
  }
  record point { x: u32, /* y */ y: u32 }
  %list: func();
}
";

    #[test]
    fn items_keep_their_comments() {
        let items = parse(TEXT).unwrap();
        assert_eq!(items[0].head, "package a:b@1.0.0");
        assert_eq!(items[1].docs, ["/// Things { in braces."]);
        assert_eq!(
            (items[1].keyword(), items[1].name()),
            ("interface", "things")
        );
        let inner = items[1].items().unwrap();
        let keywords: Vec<_> = inner.iter().map(Item::keyword).collect();
        assert_eq!(keywords, ["use", "resource", "record", "%list"]);
        let open = &inner[1].items().unwrap()[0];
        assert_eq!(
            open.head,
            "open: static async func( name: string, ) -> result<thing, error>"
        );
        assert!(open.is_function() && open.mentions("thing") && !open.mentions("things"));
        assert!(inner[3].is_function() && !inner[2].is_function());
    }

    #[test]
    fn what_is_not_closed_is_named() {
        for text in ["interface a { x: func();", "package a:b"] {
            let failure = parse(text).unwrap_err().to_string();
            assert!(failure.contains("is not closed"), "{failure}");
        }
    }
}
