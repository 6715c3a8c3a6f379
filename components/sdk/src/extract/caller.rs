//! Who is calling. The host has verified it; an extractor only reads it.

use std::ops::Deref;
use std::rc::Rc;

use super::FromRequest;
use crate::Request;
use crate::bindings::exprsn::ca::caller::{Invocation, Kind, Permissions, Principal};
use crate::openapi::Operation;
use crate::problem::{Problem, Result};

/// The invocation: `caller`, `user`, `address`, `trace_id`, `path`, `remaining_ms`.
#[derive(Clone, Debug)]
pub struct Caller(Rc<Invocation>);

impl Caller {
    /// On whose behalf the request is: the user where there is one, else the immediate caller.
    pub fn principal(&self) -> &Principal {
        self.user.as_ref().unwrap_or(&self.caller)
    }

    /// Whether nobody said who they are.
    pub fn is_anonymous(&self) -> bool {
        self.principal().kind == Kind::Anonymous
    }

    /// Whether the immediate caller's token holds a permission.
    ///
    /// The immediate caller's: a service that calls with its own right passes the user along for information only.
    pub fn has(&self, permission: Permission) -> bool {
        self.caller.permissions.contains(permission.flag())
    }
}

impl Deref for Caller {
    type Target = Invocation;
    fn deref(&self) -> &Invocation {
        &self.0
    }
}

impl From<Invocation> for Caller {
    fn from(invocation: Invocation) -> Self {
        Self(Rc::new(invocation))
    }
}

impl FromRequest for Caller {
    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(Self(request.caller().clone()))
    }
}

/// One of the rights that a token may hold on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// See.
    Read,
    /// Create and replace.
    Write,
    /// Add to.
    Append,
    /// Change.
    Update,
    /// Remove.
    Delete,
    /// All of it, and the settings.
    Admin,
}

impl Permission {
    /// As a flag of [`Permissions`].
    pub fn flag(self) -> Permissions {
        match self {
            Self::Read => Permissions::READ,
            Self::Write => Permissions::WRITE,
            Self::Append => Permissions::APPEND,
            Self::Update => Permissions::UPDATE,
            Self::Delete => Permissions::DELETE,
            Self::Admin => Permissions::ADMIN,
        }
    }
}

/// Whoever the request is for, known by name; anonymous callers are answered 401.
///
/// `id` is the subject without its kind: a user's id, and a service's or client's name where no user is behind it.
#[derive(Clone, Debug)]
pub struct User {
    /// A user's id, a service's or client's name.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// What its token permits, until when, and its further claims.
    pub principal: Principal,
}

impl User {
    fn of(request: &Request) -> Option<Self> {
        let invocation = request.caller();
        let principal = invocation.user.as_ref().unwrap_or(&invocation.caller);
        (principal.kind != Kind::Anonymous && !principal.subject.is_empty()).then(|| Self {
            id: principal.subject.clone(),
            kind: principal.kind,
            principal: principal.clone(),
        })
    }
}

impl FromRequest for User {
    async fn from_request(request: &mut Request) -> Result<Self> {
        Self::of(request).ok_or_else(|| Problem::unauthorized("this needs a token"))
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.problem(401);
    }
}

impl FromRequest for Option<User> {
    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(User::of(request))
    }
}
