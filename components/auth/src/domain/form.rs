//! `application/x-www-form-urlencoded` (WHATWG URL §5), as queries and bodies of OAuth use it.
//!
//! **Invariant:** a parameter that comes twice is an error (RFC 6749 §3.1), so two readers of one request cannot disagree.

use std::collections::BTreeMap;

/// Most parameters of one request.
const PARAMETERS_MAX: usize = 100;

/// The parameters of a request, each once. An empty value counts as absent (RFC 6749 §3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads a query or a body; the error says which parameter is at fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or("a parameter's name is not UTF-8")?;
            let value = decode(value).ok_or_else(|| format!("{name} is not UTF-8"))?;
            if all.len() >= PARAMETERS_MAX {
                return Err(format!("there are more than {PARAMETERS_MAX} parameters"));
            }
            if all.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is there more than once"));
            }
        }
        all.retain(|_, value| !value.is_empty());
        Ok(Self(all))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every name and value, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Removes a parameter and answers its value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The parameters as a query again, in the order of their names.
    pub fn to_query(&self) -> String {
        let pairs: Vec<String> = self
            .iter()
            .map(|(n, v)| format!("{}={}", encode(n), encode(v)))
            .collect();
        pairs.join("&")
    }
}

/// Decodes one name or value: `+` is a space, `%XX` a byte. None when the bytes are not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let hex = |b: u8| char::from(b).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten();
        match pair.and_then(|p| Some(hex(p[0])? * 16 + hex(p[1])?)) {
            Some(byte) => {
                out.push(u8::try_from(byte).expect("two hex digits are a byte"));
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// Encodes one name or value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-._*".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_parameters() {
        let p = Parameters::parse("a=1&b=x+y%26z&c=&d").expect("well formed");
        assert_eq!(p.get("a"), Some("1"));
        assert_eq!(p.get("b"), Some("x y&z"));
        assert_eq!(p.get("c"), None, "an empty value counts as absent");
        assert_eq!(p.get("d"), None);
        assert_eq!(p.to_query(), "a=1&b=x+y%26z");
    }

    #[test]
    fn refuses_what_comes_twice_or_is_no_text() {
        assert!(Parameters::parse("a=1&a=2").is_err_and(|e| e.contains("a is there")));
        assert!(Parameters::parse("a=%ff").is_err());
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|n| format!("p{n}=1")).collect();
        assert!(Parameters::parse(&many.join("&")).is_err());
    }

    #[test]
    fn what_was_encoded_decodes_to_itself() {
        for text in ["", "a b+c", "100% \u{20ac} ~'\"<>", "%zz%", "=&"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        assert_eq!(decode("%zz%4").as_deref(), Some("%zz%4"));
    }
}
