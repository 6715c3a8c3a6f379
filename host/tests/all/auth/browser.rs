//! A browser as far as the pages of exprsn-auth need one: cookies, forms, no redirects by itself.

use crate::harness::{Answer, Call, Platform};
use std::collections::BTreeMap;

/// Cookies, kept from answer to answer.
pub struct Browser<'a> {
    platform: &'a Platform,
    cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn new(platform: &'a Platform) -> Self {
        Self {
            platform,
            cookies: BTreeMap::new(),
        }
    }

    /// Opens a path of exprsn-auth.
    pub fn open(&mut self, path: &str) -> Answer {
        let call = self.platform.call("auth", "GET", path);
        self.send(call)
    }

    /// Submits the form of `page` whose action is `action`, with what was typed.
    pub fn submit(&mut self, page: &Answer, action: &str, typed: &[(&str, &str)]) -> Answer {
        let mut fields = hidden_fields(&page.text(), action);
        fields.extend(
            typed
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let call = self
            .platform
            .call("auth", "POST", &format!("/oauth/{action}"))
            .form(&fields);
        self.send(call)
    }

    /// What a page that asks for `name` and password leads to.
    pub fn sign_in(&mut self, page: &Answer, name: &str, password: &str) -> Answer {
        self.submit(page, "login", &[("username", name), ("password", password)])
    }

    fn send(&mut self, call: Call) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        let call = if cookies.is_empty() {
            call
        } else {
            call.header("cookie", &cookies.join("; "))
        };
        let answer = call.send();
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().expect("text");
            assert!(
                cookie.contains("; Path=/oauth; HttpOnly; SameSite=Lax"),
                "{cookie}"
            );
            let (name, value) = cookie
                .split(';')
                .next()
                .and_then(|c| c.split_once('='))
                .expect("a cookie");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }
}

/// Names and values of the hidden fields of a form.
fn hidden_fields(html: &str, action: &str) -> Vec<(String, String)> {
    let form = html
        .split("<form ")
        .find(|form| form.contains(&format!("action=\"{action}\"")));
    let form = form
        .unwrap_or_else(|| panic!("no form for {action} in {html}"))
        .split("</form>")
        .next()
        .unwrap_or_default();
    let attribute = |input: &str, name: &str| {
        let after = input
            .split(&format!("{name}=\""))
            .nth(1)
            .unwrap_or_default();
        unescape(after.split('"').next().unwrap_or_default())
    };
    let hidden = form
        .split("<input ")
        .filter(|input| input.starts_with("type=\"hidden\""));
    hidden
        .map(|input| (attribute(input, "name"), attribute(input, "value")))
        .collect()
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// A parameter in the query of a URL.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    let value = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(n, _)| *n == name)?
        .1;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).expect("hex digits")
            }
            byte => byte,
        });
    }
    Some(String::from_utf8(bytes).expect("UTF-8"))
}
