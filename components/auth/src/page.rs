//! The pages that a person sees while a client waits: sign in, second factor, consent, sign out, errors.
//!
//! Forms name their targets relative to the page, so the pages of `…/oauth/` work under any issuer; all are siblings.
//!
//! **Invariant:** every value goes through [`escape`]; no script runs, and no page may be framed. Pages work without styles,
//! by keyboard and with a screen reader.

use crate::domain::redirect;
use crate::domain::scope::Scopes;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--edge:#8c959f;--deed:#0a58ca;--on-deed:#fff;--bad:#a40e26}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b1;--paper:#0d1117;--edge:#6e7681;--deed:#79b8ff;--on-deed:#0d1117;--bad:#ff9492}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:24rem}\
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}\
p,ul{margin:0 0 1rem}\
label{display:block;margin:0 0 .25rem;font-weight:600}\
input{width:100%;padding:.625rem;margin:0 0 1rem;font:inherit;color:inherit;background:transparent;border:1px solid var(--edge);border-radius:.375rem}\
button{width:100%;padding:.75rem;margin:0 0 .75rem;font:inherit;font-weight:600;border:1px solid var(--deed);border-radius:.375rem;background:var(--deed);color:var(--on-deed);cursor:pointer}\
button.other{background:transparent;color:var(--deed)}\
:focus-visible{outline:3px solid var(--deed);outline-offset:2px}\
.bad{padding:.75rem;border:1px solid var(--bad);border-radius:.375rem;color:var(--bad)}\
.soft{color:var(--soft);overflow-wrap:anywhere}";

/// A page and the policy it is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub html: String,
    /// `Content-Security-Policy`.
    pub policy: String,
}

/// What is common to the forms of one authorization request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The name of the client that waits.
    pub client: &'a str,
    /// The request as a query; every form hands it back.
    pub request: &'a str,
    /// The proof that the form is ours.
    pub form_token: &'a str,
    /// The client's redirect URI. `form-action` must name its origin: browsers apply it to the redirect that follows too.
    pub target: &'a str,
    /// What went wrong with the last try.
    pub error: Option<&'a str>,
}

/// Asks for name and password.
pub fn login(context: &Context, name: &str) -> Page {
    let body = format!(
        "<h1>Sign in</h1>\
         <p>to continue to <strong>{client}</strong></p>{error}\
         <form method=\"post\" action=\"login\">{hidden}\
         <label for=\"username\">User name or email</label>\
         <input id=\"username\" name=\"username\" value=\"{name}\" autocomplete=\"username\" autocapitalize=\"none\" \
         spellcheck=\"false\" required maxlength=\"254\"{focus_name}>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required \
         maxlength=\"1024\"{focus_password}>\
         <button>Sign in</button></form>\
         <form method=\"post\" action=\"consent\">{hidden}\
         <button class=\"other\" name=\"decision\" value=\"deny\">Cancel</button></form>",
        client = escape(context.client),
        error = alert(context.error),
        hidden = hidden(context),
        name = escape(name),
        focus_name = if name.is_empty() { " autofocus" } else { "" },
        focus_password = if name.is_empty() { "" } else { " autofocus" },
    );
    page("Sign in", &body, context.target)
}

/// Asks for the second factor; `challenge` remembers that the password was right.
pub fn second_factor(context: &Context, challenge: &str) -> Page {
    let body = format!(
        "<h1>Enter your code</h1>\
         <p id=\"help\">Open your authenticator and enter the six digits that it shows for this account, or use a recovery code.</p>{error}\
         <form method=\"post\" action=\"mfa\">{hidden}\
         <input type=\"hidden\" name=\"challenge\" value=\"{challenge}\">\
         <label for=\"code\">Code</label>\
         <input id=\"code\" name=\"code\" autocomplete=\"one-time-code\" autocapitalize=\"none\" spellcheck=\"false\" \
         required maxlength=\"40\" aria-describedby=\"help\" autofocus>\
         <button>Continue</button></form>",
        error = alert(context.error),
        hidden = hidden(context),
        challenge = escape(challenge),
    );
    page("Enter your code", &body, context.target)
}

/// Asks whether the client may have what it asks for.
pub fn consent(
    context: &Context,
    username: &str,
    scopes: Scopes,
    client_uri: Option<&str>,
) -> Page {
    let items: String = scopes
        .iter()
        .map(|s| format!("<li>{}</li>", escape(s.explained())))
        .collect();
    let uri = client_uri
        .map(|u| format!("<p class=\"soft\">{}</p>", escape(u)))
        .unwrap_or_default();
    let body = format!(
        "<h1><span>{client}</span> asks for access</h1>{uri}\
         <p>You are signed in as <strong>{username}</strong>. If you allow it, {client} can:</p><ul>{items}</ul>{error}\
         <form method=\"post\" action=\"consent\">{hidden}\
         <button name=\"decision\" value=\"allow\">Allow</button>\
         <button class=\"other\" name=\"decision\" value=\"deny\">Do not allow</button></form>\
         <p class=\"soft\">You will go on to {target}</p>",
        client = escape(context.client),
        username = escape(username),
        error = alert(context.error),
        hidden = hidden(context),
        target = escape(&redirect::csp_source(context.target)),
    );
    page("Allow access?", &body, context.target)
}

/// Asks whether to sign out.
pub fn confirm_logout(request: &str, form_token: &str, target: &str) -> Page {
    let context = Context {
        client: "",
        request,
        form_token,
        target,
        error: None,
    };
    let body = format!(
        "<h1>Sign out?</h1><p>You will be signed out of this browser, and of the applications that you opened with it.</p>\
         <form method=\"post\" action=\"logout\">{hidden}<button name=\"decision\" value=\"allow\">Sign out</button></form>",
        hidden = hidden(&context),
    );
    page("Sign out?", &body, target)
}

/// Says that something is done, or went wrong, with nothing to choose.
pub fn message(title: &str, text: &str) -> Page {
    let body = format!("<h1>{}</h1><p>{}</p>", escape(title), escape(text));
    page(title, &body, "")
}

fn hidden(context: &Context) -> String {
    format!(
        "<input type=\"hidden\" name=\"request\" value=\"{}\"><input type=\"hidden\" name=\"form_token\" value=\"{}\">",
        escape(context.request),
        escape(context.form_token)
    )
}

fn alert(error: Option<&str>) -> String {
    error
        .map(|text| format!("<p class=\"bad\" role=\"alert\">{}</p>", escape(text)))
        .unwrap_or_default()
}

fn page(title: &str, body: &str, target: &str) -> Page {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{} · Exprsn</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>",
        escape(title)
    );
    let style = BASE64.encode(&Sha256::digest(STYLE.as_bytes()));
    let target = redirect::csp_source(target);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self' {target}; frame-ancestors 'none'; base-uri 'none'"
    );
    Page {
        html,
        policy: policy.replace(" ;", ";"),
    }
}

/// Makes text harmless in HTML, within attributes too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "\"><script>alert('x')</script>";

    fn context() -> Context<'static> {
        Context {
            client: EVIL,
            request: EVIL,
            form_token: EVIL,
            target: "https://a.example",
            error: Some(EVIL),
        }
    }

    #[test]
    fn nothing_that_comes_in_is_markup() {
        let scopes = Scopes::parse("openid email");
        for page in [
            login(&context(), EVIL),
            second_factor(&context(), EVIL),
            consent(&context(), EVIL, scopes, Some(EVIL)),
            confirm_logout(EVIL, EVIL, "https://a.example"),
            message(EVIL, EVIL),
        ] {
            assert!(!page.html.contains("<script"), "{}", page.html);
            assert!(!page.html.contains("'x'"), "{}", page.html);
        }
    }

    #[test]
    fn policy_allows_the_style_the_form_and_nothing_else() {
        let page = login(&context(), "ann");
        assert!(
            page.policy
                .starts_with("default-src 'none'; style-src 'sha256-")
        );
        assert!(
            page.policy
                .contains("form-action 'self' https://a.example;")
        );
        assert!(page.policy.contains("frame-ancestors 'none'"));
        assert!(message("a", "b").policy.contains("form-action 'self';"));
    }

    #[test]
    fn every_field_has_a_label_and_errors_are_announced() {
        let html = login(&context(), "").html;
        assert!(
            html.contains("<label for=\"username\">") && html.contains("<label for=\"password\">")
        );
        assert!(
            html.contains("role=\"alert\"")
                && html.contains("<html lang=\"en\">")
                && html.contains("<main>")
        );
    }
}
