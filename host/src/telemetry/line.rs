//! One record, one line: whatever text of a guest or a client is in a record, it forges no further one.

use std::io::{self, Write};

/// Stderr, for one record of the log.
pub fn one_line_each() -> impl Write {
    OneLine(io::stderr())
}

/// Writes what it is given at once as one line.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let body = record.strip_suffix(b"\n").unwrap_or(record);
        if body.iter().any(|byte| is_forging(*byte)) {
            let mut line = Vec::with_capacity(record.len() + 16);
            for byte in body {
                match byte {
                    byte if is_forging(*byte) => line.extend(byte.escape_ascii()),
                    byte => line.push(*byte),
                }
            }
            line.push(b'\n');
            self.0.write_all(&line)?;
        } else {
            self.0.write_all(record)?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Control characters but the tab, and the escape that begins the log's own colours: in values that is escaped already.
fn is_forging(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | 0x1b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let check = |record: &str, expected: &str| {
            let mut written = OneLine(Vec::new());
            written.write_all(record.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written.0).unwrap(), expected);
        };
        check("plain ü\n", "plain ü\n");
        check(
            "error=a\nINFO forged\r\u{8}\n",
            "error=a\\nINFO forged\\r\\x08\n",
        );
        check("without an end", "without an end");
    }
}
