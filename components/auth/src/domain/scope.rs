//! What an OAuth client may ask for: the scopes of OpenID Connect, and one scope for each permission of the platform.
//!
//! **Invariant:** a token whose scopes name no permission opens userinfo and nothing else, so signing in with an account does
//! not hand the account over.

use std::fmt;

/// A scope. The order is the order in which a set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    OpenId,
    Profile,
    Email,
    OfflineAccess,
    Read,
    Write,
    Append,
    Update,
    Delete,
    Admin,
}

impl Scope {
    /// Every scope, the only list of them.
    pub const ALL: [Self; 10] = [
        Self::OpenId,
        Self::Profile,
        Self::Email,
        Self::OfflineAccess,
        Self::Read,
        Self::Write,
        Self::Append,
        Self::Update,
        Self::Delete,
        Self::Admin,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenId => "openid",
            Self::Profile => "profile",
            Self::Email => "email",
            Self::OfflineAccess => "offline_access",
            Self::Read => "read",
            Self::Write => "write",
            Self::Append => "append",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    /// What a person is told on the consent page.
    pub fn explained(self) -> &'static str {
        match self {
            Self::OpenId => "Know who you are",
            Self::Profile => "See your name and profile",
            Self::Email => "See your email address",
            Self::OfflineAccess => "Keep access while you are away",
            Self::Read => "Read what you can read",
            Self::Write => "Post and create things for you",
            Self::Append => "Add to things that are yours",
            Self::Update => "Change things that are yours",
            Self::Delete => "Delete things that are yours",
            Self::Admin => "Administer the platform as you can",
        }
    }

    /// Whether it names a permission of the platform rather than a part of the identity.
    pub fn is_permission(self) -> bool {
        self >= Self::Read
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    /// No scope at all.
    pub const NONE: Self = Self(0);

    /// Reads scopes separated by spaces. Words that are no scope are left out, as OpenID Connect Core §3.1.2.1 advises.
    pub fn parse(text: &str) -> Self {
        text.split(' ')
            .filter_map(|word| Scope::ALL.into_iter().find(|s| s.as_str() == word))
            .collect()
    }

    /// Reads scopes separated by spaces; the first word that is none is the error.
    pub fn parse_strict(text: &str) -> Result<Self, String> {
        let words = text.split(' ').filter(|w| !w.is_empty());
        words
            .map(|w| {
                Scope::ALL
                    .into_iter()
                    .find(|s| s.as_str() == w)
                    .ok_or_else(|| w.to_owned())
            })
            .collect()
    }

    pub fn has(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | Self::bit(scope))
    }

    pub fn without(self, scope: Scope) -> Self {
        Self(self.0 & !Self::bit(scope))
    }

    /// What both have.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either has.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `other` has all of these.
    pub fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The scopes of it that are permissions.
    pub fn permissions(self) -> Self {
        self.iter().filter(|s| s.is_permission()).collect()
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |s| self.has(*s))
    }

    fn bit(scope: Scope) -> u16 {
        1 << scope as u16
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{}", scope.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_scopes_in_one_order() {
        let scopes = Scopes::parse("email openid  write unknown openid");
        assert_eq!(scopes.to_string(), "openid email write");
        assert_eq!(Scopes::parse("").to_string(), "");
        assert_eq!(
            Scopes::parse(&Scopes::parse("admin read").to_string()),
            Scopes::parse("read admin")
        );
    }

    #[test]
    fn strict_reading_names_the_stranger() {
        assert_eq!(Scopes::parse_strict("openid foo"), Err("foo".into()));
        assert_eq!(Scopes::parse_strict("openid"), Ok(Scopes::parse("openid")));
    }

    #[test]
    fn sets_behave_as_sets() {
        let (a, b) = (
            Scopes::parse("openid read write"),
            Scopes::parse("openid read"),
        );
        assert_eq!(a.and(b), b);
        assert!(b.within(a) && !a.within(b));
        assert_eq!(a.permissions().to_string(), "read write");
        assert!(
            Scopes::parse("openid profile email offline_access")
                .permissions()
                .is_empty()
        );
        assert_eq!(a.without(Scope::OpenId).to_string(), "read write");
    }
}
