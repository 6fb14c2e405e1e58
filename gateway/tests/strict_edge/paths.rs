//! Paths: refused where origins would disagree, else routed by their normal form while the origin
//! gets the bytes as they came.

use crate::edge::{edge, refused};
use hub_core::Reason;

fn path(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

refused! {
    climbing_above_the_root_is_refused: path("/../etc/passwd") => BadPath;
    climbing_above_the_root_later_is_refused: path("/a/../../b") => BadPath;
    climbing_above_the_root_in_escapes_is_refused: path("/%2e%2e/a") => BadPath;
    an_escaped_slash_is_refused: path("/a%2fb") => BadPath;
    an_escaped_slash_in_upper_case_is_refused: path("/a%2Fb") => BadPath;
    dots_before_an_escaped_slash_are_refused: path("/public/..%2fadmin") => BadPath;
    an_escape_of_an_escape_is_refused: path("/a%252fb") => BadPath;
    a_backslash_is_refused: path("/a\\b") => BadPath;
    an_escaped_backslash_is_refused: path("/a%5cb") => BadPath;
    an_escaped_nul_is_refused: path("/a%00") => BadPath;
    escaped_line_ends_are_refused: path("/a%0d%0aX:%20b") => BadPath;
    an_overlong_slash_is_refused: path("/a%c0%afb") => BadPath;
    overlong_dots_are_refused: path("/%c0%ae%c0%ae/a") => BadPath;
    dots_that_lead_out_of_a_guarded_route_are_refused: path("/admin/../public") => BadPath;
    dots_that_lead_into_a_guarded_route_are_refused: path("/public/../admin/x") => BadPath;
    escaped_dots_that_lead_elsewhere_are_refused: path("/admin/%2e%2E/public") => BadPath;
    half_escaped_dots_that_lead_elsewhere_are_refused: path("/admin/.%2e/public") => BadPath;
    dots_at_the_end_are_refused: path("/admin/..") => BadPath;
    a_parameter_that_hides_a_segment_is_refused: path("/;x=1/admin") => BadPath;
    dots_with_a_parameter_are_refused: path("/a/..;x=1/b") => BadPath;
    climbing_out_of_an_empty_segment_is_refused: path("/a//../b") => BadPath;
    half_an_escape_is_refused: path("/a%2") => BadPath;
    a_fragment_is_refused: path("/a#b") => BadPath;
    a_raw_byte_above_ascii_is_refused: b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n" => BadPath;
}

/// A request for `raw` takes this route, and the origin gets `raw`.
async fn routed(raw: &str, route: &str) {
    let admin =
        "\n[[route]]\nname = \"admin\"\npath = { prefix = \"/admin\" }\ncluster = \"app\"\n";
    let edge = edge("", admin).await;
    edge.served(path(raw)).await;
    assert_eq!(edge.origin.requests()[0].target, raw);
    let line = &edge.hub.wait_for_access_log(1).await[0];
    assert_eq!(line["route"], route, "{line}");
    assert_eq!(line["path"], raw.split('?').next().unwrap_or(raw), "{line}");
    edge.assert_nothing_refused().await;
}

/// Some origins drop `;x=1` and would serve what the route `admin` guards.
#[tokio::test]
async fn a_parameter_that_leads_to_another_route_is_refused() {
    let admin =
        "\n[[route]]\nname = \"admin\"\npath = { prefix = \"/admin\" }\ncluster = \"app\"\n";
    for raw in [
        "/admin;x=1/users",
        "/admin;",
        "/admin%3bx/users",
        "//admin;x",
    ] {
        let edge = edge("", admin).await;
        let mut client = edge.client().await;
        client.send(path(raw)).await;
        edge.assert_refused(&mut client, Reason::BadPath).await;
        edge.assert_origin_untouched();
    }
}

macro_rules! routed {
    ($($name:ident: $raw:literal => $route:literal;)+) => {$(
        #[tokio::test]
        async fn $name() {
            routed($raw, $route).await;
        }
    )+};
}

routed! {
    a_dot_segment_is_routed_without_it: "/./admin" => "admin";
    doubled_slashes_are_routed_as_one: "//admin//x" => "admin";
    escaped_letters_are_routed_as_letters: "/%61dmin" => "admin";
    a_parameter_below_a_route_s_own_path_is_kept: "/admin/cars;colour=red/x;y" => "admin";
    a_parameter_of_no_other_route_is_kept: "/cars;x=1/y;jsessionid=2" => "all";
    a_query_is_no_part_of_the_path: "/a?b=../admin/%2f%5c" => "all";
    an_escaped_letter_above_ascii_stays_escaped: "/admin/caf%c3%a9" => "admin";
}
