//! route: host, path, method and headers to a route; nothing of the tenant yet.

use crate::front::path;
use crate::router::{self, Match, Router};
use http::header::ALLOW;
use hub_core::{Edit, Edits, HeaderValue, Method, Reason, Refusal, RequestView};
use std::ops::Range;

/// The route that a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMatch<'s> {
    /// Position of the route in the configuration.
    pub route: usize,
    path: &'s str,
}

/// Finds the route of a request.
///
/// # Errors
/// [`Reason::NoRoute`], or [`Reason::MethodNotAllowed`] with an `Allow` header in `edits.response`; or
/// [`Reason::BadPath`] where an origin that drops parameters (`;x=1`) from a path would read it as one
/// of another route, whose rules this request would not have been held to.
pub fn route<'s>(
    router: &Router,
    view: &RequestView<'s>,
    edits: &mut Edits,
) -> Result<RouteMatch<'s>, Refusal> {
    let found = router.find(view);
    if let Some(path) = path::without_parameters(view.path) {
        let dropped = RequestView {
            path: &path,
            ..*view
        };
        if router.find(&dropped) != found {
            return Err(Refusal::new(Reason::BadPath)
                .with_detail("without its parameters the path takes another route"));
        }
    }
    match found {
        Match::Found { route } => Ok(RouteMatch {
            route,
            path: view.path,
        }),
        Match::MethodNotAllowed { allowed } => {
            edits.response.push(Edit::Set(ALLOW, list(&allowed)));
            Err(Refusal::new(Reason::MethodNotAllowed))
        }
        Match::None => Err(Refusal::new(Reason::NoRoute)),
    }
}

impl RouteMatch<'_> {
    /// Bytes of the request's normalised path that the template's segment with this position took;
    /// `None` where the path has no such segment. For text and `{name}`, not for `{*name}`.
    pub fn segment(&self, index: usize) -> Option<Range<usize>> {
        router::segment(self.path, index)
    }
}

fn list(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", "))
        .expect("methods are tokens, which may stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::RoutePattern;
    use crate::router::testing::Request;
    use hub_config::runtime::PathPattern;

    #[test]
    fn a_wrong_method_is_answered_with_the_right_ones() {
        let path = PathPattern::Exact("/a".into());
        let pattern = |methods| RoutePattern {
            methods,
            ..RoutePattern::any(&path)
        };
        let router = Router::from_patterns([
            pattern(&[Method::PUT, Method::GET]),
            pattern(&[Method::DELETE]),
        ]);
        let mut edits = Edits::default();
        let refusal = Request::new("h", "/a")
            .method(Method::POST)
            .with(|view| route(&router, view, &mut edits).map(|found| found.route));
        assert_eq!(refusal, Err(Refusal::new(Reason::MethodNotAllowed)));
        let allow = Edit::Set(ALLOW, HeaderValue::from_static("DELETE, GET, PUT"));
        assert_eq!(edits.response, [allow]);
    }

    #[test]
    fn what_no_route_matches_is_not_found() {
        let path = PathPattern::Exact("/a".into());
        let router = Router::from_patterns([RoutePattern::any(&path)]);
        let mut edits = Edits::default();
        let mut find = |path| {
            Request::new("h", path)
                .with(|view| route(&router, view, &mut edits).map(|found| found.route))
        };
        assert_eq!(find("/a"), Ok(0));
        assert_eq!(find("/a/"), Err(Refusal::new(Reason::NoRoute)));
        assert_eq!(find("*"), Err(Refusal::new(Reason::NoRoute)));
        assert!(edits.response.is_empty());
    }

    #[test]
    fn parameters_may_not_lead_to_another_route() {
        let (admin, all) = (
            PathPattern::Prefix("/admin".into()),
            PathPattern::Prefix("/".into()),
        );
        let router = Router::from_patterns([RoutePattern::any(&admin), RoutePattern::any(&all)]);
        let mut edits = Edits::default();
        let mut find = |path| {
            Request::new("h", path).with(|view| {
                route(&router, view, &mut edits)
                    .map(|found| found.route)
                    .map_err(|refusal| refusal.reason)
            })
        };
        assert_eq!(find("/admin/a;v=1/b;w"), Ok(0));
        assert_eq!(find("/cars;colour=red/x"), Ok(1));
        assert_eq!(find("/;session=1"), Ok(1));
        assert_eq!(find("/admin;x=1/users"), Err(Reason::BadPath));
        assert_eq!(find("/admin;"), Err(Reason::BadPath));
    }
}
