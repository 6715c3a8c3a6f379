//! The router: which function answers which path and method, and what the service says of itself.

use std::cell::OnceCell;

use futures_util::future::LocalBoxFuture;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::handler::{Endpoint, Handler, endpoint};
use crate::openapi::{self, Operation};
use crate::response::{IntoResponse, Response};
use crate::{Body, Problem, Request, health};

/// The routes of a service.
///
/// Patterns are those of component.toml: `{name}` is one segment, `{*rest}` the remainder. `GET /health` and
/// `GET /openapi.json` are there by themselves.
pub struct Router {
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) paths: Vec<Path>,
    tree: matchit::Router<usize>,
    fallback: Option<Endpoint>,
    around: Option<Around>,
    /// Where the last route is, for the methods that say more about it.
    last: Option<(usize, usize)>,
    document: OnceCell<String>,
}

/// What [`Router::around`] takes: `fn gate(request: Request, next: Next<'_>) -> LocalBoxFuture<'_, Response>`.
pub type Around = for<'a> fn(Request, Next<'a>) -> LocalBoxFuture<'a, Response>;

/// The router itself, as what is around it sees it.
pub struct Next<'a>(&'a Router);

impl Next<'_> {
    /// The router's answer.
    pub async fn run(self, request: Request) -> Response {
        self.0.answer(request).await
    }
}

/// The routes of one pattern.
pub(crate) struct Path {
    pub(crate) pattern: String,
    pub(crate) routes: Vec<Route>,
}

/// One method of a pattern.
pub(crate) struct Route {
    /// None: every method.
    pub(crate) method: Option<Method>,
    target: Target,
    pub(crate) describe: fn(&mut Operation<'_>),
    pub(crate) about: About,
}

enum Target {
    Handler(Endpoint),
    Document,
}

/// What the OpenAPI document says of a route beyond its types.
#[derive(Default)]
pub(crate) struct About {
    pub(crate) summary: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) public: bool,
    pub(crate) hidden: bool,
    pub(crate) problems: Vec<u16>,
}

impl Router {
    /// The routes of the service called `title` for people, in a version.
    pub fn new(title: &str, version: &str) -> Self {
        let mut router = Self {
            title: title.to_owned(),
            version: version.to_owned(),
            paths: Vec::new(),
            tree: matchit::Router::new(),
            fallback: None,
            around: None,
            last: None,
            document: OnceCell::new(),
        }
        .get("/health", health::health)
        .summary("Whether the service and what it needs are well")
        .public();
        router.add(
            Some(Method::GET),
            "/openapi.json",
            Target::Document,
            openapi::describe_document,
        );
        router.summary("This document").public()
    }

    /// Answers `GET path` (and `HEAD`) with a handler.
    pub fn get<A, H: Handler<A>>(self, path: &str, handler: H) -> Self {
        self.route(Method::GET, path, handler)
    }

    /// Answers `POST path`.
    pub fn post<A, H: Handler<A>>(self, path: &str, handler: H) -> Self {
        self.route(Method::POST, path, handler)
    }

    /// Answers `PUT path`.
    pub fn put<A, H: Handler<A>>(self, path: &str, handler: H) -> Self {
        self.route(Method::PUT, path, handler)
    }

    /// Answers `PATCH path`.
    pub fn patch<A, H: Handler<A>>(self, path: &str, handler: H) -> Self {
        self.route(Method::PATCH, path, handler)
    }

    /// Answers `DELETE path`.
    pub fn delete<A, H: Handler<A>>(self, path: &str, handler: H) -> Self {
        self.route(Method::DELETE, path, handler)
    }

    /// Answers a method of a path.
    pub fn route<A, H: Handler<A>>(mut self, method: Method, path: &str, handler: H) -> Self {
        self.add(
            Some(method),
            path,
            Target::Handler(endpoint(handler)),
            H::describe,
        );
        self
    }

    /// Answers every method of a path that has no handler of its own, `OPTIONS` and `HEAD` included.
    pub fn any<A, H: Handler<A>>(mut self, path: &str, handler: H) -> Self {
        self.add(None, path, Target::Handler(endpoint(handler)), H::describe);
        self.hidden()
    }

    /// Answers what no pattern matches; a problem 404 otherwise.
    pub fn fallback<A, H: Handler<A>>(mut self, handler: H) -> Self {
        self.fallback = Some(endpoint(handler));
        self
    }

    /// Puts a function around every answer: those of `/health`, of 404 and 405, and of `OPTIONS` too.
    ///
    /// It may change the request, answer by itself, or change what [`Next::run`] answers. A gateway's matter.
    pub fn around(mut self, around: Around) -> Self {
        self.around = Some(around);
        self
    }

    /// Takes over the routes of another router; its title, version and built-in routes are dropped.
    pub fn merge(mut self, other: Router) -> Self {
        for path in other
            .paths
            .into_iter()
            .filter(|path| !BUILT_IN.contains(&path.pattern.as_str()))
        {
            for route in path.routes {
                self.insert(&path.pattern, route);
            }
        }
        self
    }

    /// Says in a sentence what the last route does.
    pub fn summary(self, text: &str) -> Self {
        self.about(|about| about.summary = Some(text.to_owned()))
    }

    /// Says more about the last route, in Markdown.
    pub fn description(self, text: &str) -> Self {
        self.about(|about| about.description = Some(text.to_owned()))
    }

    /// Groups the last route with others.
    pub fn tag(self, text: &str) -> Self {
        self.about(|about| about.tag = Some(text.to_owned()))
    }

    /// Marks the last route as needing no token, as component.toml does with `access = "public"`.
    pub fn public(self) -> Self {
        self.about(|about| about.public = true)
    }

    /// Leaves the last route out of the OpenAPI document.
    pub fn hidden(self) -> Self {
        self.about(|about| about.hidden = true)
    }

    /// Names statuses with which the last route's handler refuses, beyond those that follow from its types.
    pub fn problems(self, statuses: &[u16]) -> Self {
        self.about(|about| about.problems.extend(statuses))
    }

    fn about(mut self, change: impl FnOnce(&mut About)) -> Self {
        let (path, route) = self
            .last
            .expect("a route comes before what is said about it");
        change(&mut self.paths[path].routes[route].about);
        self
    }

    fn add(
        &mut self,
        method: Option<Method>,
        path: &str,
        target: Target,
        describe: fn(&mut Operation<'_>),
    ) {
        self.insert(
            path,
            Route {
                method,
                target,
                describe,
                about: About::default(),
            },
        );
    }

    fn insert(&mut self, pattern: &str, route: Route) {
        let index = self
            .paths
            .iter()
            .position(|path| path.pattern == pattern)
            .unwrap_or_else(|| {
                let index = self.paths.len();
                if let Err(error) = self.tree.insert(pattern, index) {
                    panic!("the route {pattern} cannot be added: {error}");
                }
                self.paths.push(Path {
                    pattern: pattern.to_owned(),
                    routes: Vec::new(),
                });
                index
            });
        let routes = &mut self.paths[index].routes;
        assert!(
            routes.iter().all(|other| other.method != route.method),
            "two routes for {:?} {pattern}: remove one",
            route.method
        );
        routes.push(route);
        self.last = Some((index, routes.len() - 1));
    }

    /// The routes with their methods (`*` for any), those of the router itself included.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.paths.iter().flat_map(|path| {
            path.routes.iter().map(|r| {
                (
                    r.method.as_ref().map_or("*", Method::as_str),
                    path.pattern.as_str(),
                )
            })
        })
    }

    /// The OpenAPI 3.1 document.
    pub fn openapi(&self) -> Value {
        openapi::document(self)
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request) -> Response {
        match self.around {
            Some(around) => around(request, Next(self)).await,
            None => self.answer(request).await,
        }
    }

    async fn answer(&self, mut request: Request) -> Response {
        let matched = match self.tree.at(request.path()) {
            Ok(found) => Some((*found.value, decode(found.params.iter()))),
            Err(_) => None,
        };
        let (path, params) = match matched {
            Some((index, Ok(params))) => (&self.paths[index], params),
            Some((_, Err(problem))) => return problem.into_response(),
            None => return self.nowhere(request).await,
        };
        request.set_params(params);
        match path.find(request.method()) {
            Some(route) => self.run(route, request).await,
            None if request.method() == Method::HEAD => match path.find(&Method::GET) {
                Some(route) => self.head(route, request).await,
                None => path.refuse(&Method::HEAD),
            },
            None => path.refuse(request.method()),
        }
    }

    async fn run(&self, route: &Route, request: Request) -> Response {
        match &route.target {
            Target::Handler(endpoint) => endpoint(request).await,
            Target::Document => {
                let text = self.document.get_or_init(|| self.openapi().to_string());
                Response::ok()
                    .header("content-type", "application/json")
                    .body(text.as_str())
            }
        }
    }

    /// Answers `HEAD` as `GET` would, without the body.
    async fn head(&self, route: &Route, mut request: Request) -> Response {
        request.set_method(Method::GET);
        let mut response = self.run(route, request).await;
        if let Some(length) = response
            .content
            .length()
            .filter(|_| !response.headers.contains("content-length"))
        {
            response.headers.set("content-length", length.to_string());
        }
        response.content = Body::empty();
        response
    }

    async fn nowhere(&self, request: Request) -> Response {
        match &self.fallback {
            Some(fallback) => fallback(request).await,
            None => Problem::new(StatusCode::NOT_FOUND)
                .detail(format!("there is nothing at {}", request.path()))
                .into_response(),
        }
    }
}

const BUILT_IN: [&str; 2] = ["/health", "/openapi.json"];

impl Path {
    fn find(&self, method: &Method) -> Option<&Route> {
        let own = self
            .routes
            .iter()
            .find(|route| route.method.as_ref() == Some(method));
        own.or_else(|| self.routes.iter().find(|route| route.method.is_none()))
    }

    /// 204 to `OPTIONS`, 405 to others, both with `Allow`.
    fn refuse(&self, method: &Method) -> Response {
        let mut allowed: Vec<&str> = self
            .routes
            .iter()
            .filter_map(|r| r.method.as_ref())
            .map(Method::as_str)
            .collect();
        if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
            allowed.push("HEAD");
        }
        allowed.push("OPTIONS");
        let allow = allowed.join(", ");
        if method == Method::OPTIONS {
            return Response::new(StatusCode::NO_CONTENT).header("allow", allow);
        }
        Problem::new(StatusCode::METHOD_NOT_ALLOWED)
            .detail(format!("{} allows {allow}", self.pattern))
            .header("allow", allow)
            .into_response()
    }
}

fn decode<'a>(
    params: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<(String, String)>, Problem> {
    params
        .map(|(name, value)| {
            let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
            let decoded = decoded.map_err(|_| Problem::bad_request(name, "is not UTF-8"))?;
            Ok((name.to_owned(), decoded.into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests;
