//! Header fields: a short list, compared without regard to case.

/// Header fields in their order, several of one name allowed.
///
/// A list and not a hash map: requests carry a dozen fields, of which a handler asks for two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub(crate) Vec<(String, Vec<u8>)>);

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of `name`, unless it is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// All values of `name` that are UTF-8.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .filter_map(|(_, v)| std::str::from_utf8(v).ok())
    }

    /// Whether there is a field `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// Makes `value` the only value of `name`.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Adds a field and leaves others of its name.
    pub fn append(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// Removes every field `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// The fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// Removes the fields that concern one connection only (RFC 9110 §7.6.1), those that `Connection` names among them.
    pub fn remove_hop_by_hop(&mut self) {
        let named: Vec<String> = self
            .get_all("connection")
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        for name in HOP_BY_HOP
            .iter()
            .copied()
            .chain(named.iter().map(String::as_str))
        {
            self.remove(name);
        }
    }
}

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case() {
        let mut headers = Headers::new();
        headers.append("Content-Type", "text/plain");
        assert_eq!(headers.get("content-TYPE"), Some("text/plain"));
        headers.set("content-type", "text/html");
        assert_eq!(
            headers.get_all("Content-Type").collect::<Vec<_>>(),
            ["text/html"]
        );
    }

    #[test]
    fn hop_by_hop_fields_go_with_those_that_connection_names() {
        let mut headers = Headers::new();
        for (name, value) in [
            ("Connection", "close, X-Secret"),
            ("X-Secret", "1"),
            ("TE", "trailers"),
            ("Accept", "*/*"),
        ] {
            headers.append(name, value);
        }
        headers.remove_hop_by_hop();
        assert_eq!(
            headers.iter().map(|(n, _)| n).collect::<Vec<_>>(),
            ["accept"]
        );
    }
}
