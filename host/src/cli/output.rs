//! How commands speak: tables and colours for people, JSON for programs, errors with a cause and a remedy.

use serde::Serialize;
use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
};

/// What a command's exit code says besides 0 (done, and all is well) and 2 (wrong usage, from clap).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command failed, or what it looked at is not well.
    Failed = 1,
    /// The platform could not be reached.
    Unreachable = 3,
    /// The platform refused: no token, or one without the right.
    Refused = 4,
}

/// The exit codes, for the help.
pub const EXIT_CODES: &str = "Exit codes:
  0  done, and all is well
  1  failed, or something is not well
  2  wrong usage
  3  the platform cannot be reached
  4  the platform refused: no token, or one without the right";

/// Why a command did not succeed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub failure: Failure,
    /// What happened.
    pub cause: String,
    /// What to do; empty where there is nothing to say.
    pub remedy: String,
}

/// The result of a command.
pub type Result<T = ()> = std::result::Result<T, CliError>;

impl CliError {
    /// A plain failure.
    pub fn failed(cause: impl Into<String>) -> Self {
        Self {
            failure: Failure::Failed,
            cause: cause.into(),
            remedy: String::new(),
        }
    }

    /// The same with what to do about it.
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: remedy.into(),
            ..self
        }
    }

    /// The same with another exit code.
    pub fn code(self, failure: Failure) -> Self {
        Self { failure, ..self }
    }

    /// Tells it on stderr.
    pub fn tell(&self) {
        let style = Style::stderr();
        let _ = writeln!(std::io::stderr(), "{} {self}", style.red("error:"));
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  → {}", self.remedy)?;
        }
        Ok(())
    }
}

impl From<wasmtime::Error> for CliError {
    fn from(error: wasmtime::Error) -> Self {
        Self::failed(crate::telemetry::chain(&error))
    }
}

/// Whether stdout is read by a person.
pub fn for_a_person() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints a value as JSON. A reader that has gone is no failure.
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> Result {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::failed(format!("cannot write JSON: {error}")))?;
    print(&text);
    Ok(())
}

/// What strangers wrote (jobs, lines of logs), for a terminal: control characters are shown, not obeyed.
pub fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

/// Prints a line, or several. A reader that has gone is no failure.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Clears the screen before a repeated view is drawn again.
pub fn clear_screen() {
    let _ = write!(std::io::stdout(), "\x1b[2J\x1b[H");
}

/// Colours, where they are wanted: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// For stdout.
    pub fn stdout() -> Self {
        Self::wanted(std::io::stdout().is_terminal())
    }

    /// For stderr.
    pub fn stderr() -> Self {
        Self::wanted(std::io::stderr().is_terminal())
    }

    fn wanted(terminal: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            coloured: terminal && !no_color,
        }
    }

    fn paint(self, code: u8, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint(1, text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint(2, text)
    }

    pub fn red(self, text: &str) -> String {
        self.paint(31, text)
    }

    pub fn green(self, text: &str) -> String {
        self.paint(32, text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.paint(33, text)
    }

    /// A status in the colour of its meaning.
    pub fn status(self, status: &str) -> String {
        match status {
            "healthy" | "live" | "valid" => self.green(status),
            "degraded" | "starting" | "draining" | "paused" => self.yellow(status),
            _ => self.red(status),
        }
    }
}

/// A table with aligned columns; colours do not count for the width.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of numbers, aligned to the right.
    numbers: &'static [usize],
}

impl Table {
    /// A table with its headings. `numbers` are the columns aligned to the right.
    pub fn new(headings: &[&str], numbers: &'static [usize], style: Style) -> Self {
        Self {
            rows: vec![headings.iter().map(|heading| style.bold(heading)).collect()],
            numbers,
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, without trailing spaces.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| visible_width(cell))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let padding = " ".repeat(widths[column] - visible_width(cell));
                if self.numbers.contains(&column) {
                    format!("{padding}{cell}")
                } else {
                    format!("{cell}{padding}")
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Characters without the escape sequences of colours.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut escaped = false;
    for character in text.chars() {
        match character {
            '\x1b' => escaped = true,
            'm' if escaped => escaped = false,
            _ if escaped => {}
            _ => width += 1,
        }
    }
    width
}

/// A size: `138 kB`, `1.2 MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A time span in the two largest units: `3 d 4 h`, `2 min 5 s`, `0.4 s`.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_ignore_colours() {
        let plain = Style { coloured: false };
        let mut table = Table::new(&["NAME", "N"], &[1], plain);
        table.row([Style { coloured: true }.green("ok"), "10".to_owned()]);
        table.row(["longer".to_owned(), "9".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME     N\n\x1b[32mok\x1b[0m      10\nlonger   9"
        );
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(
            [0, 999, 137_001, 1_250_000].map(size),
            ["0 B", "999 B", "138 kB", "1.2 MB"]
        );
    }

    #[test]
    fn spans_have_two_units() {
        let texts: Vec<String> = [0.42, 65.0, 7_260.0, 90_000.0]
            .into_iter()
            .map(span)
            .collect();
        assert_eq!(texts, ["0.4 s", "1 min 5 s", "2 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = CliError::failed("the disk is full")
            .remedy("delete something")
            .code(Failure::Refused);
        assert_eq!(error.to_string(), "the disk is full\n  → delete something");
        assert_eq!(error.failure as u8, 4);
    }
}
