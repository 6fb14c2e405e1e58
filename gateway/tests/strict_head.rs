//! Heads that must be refused, one named case for each way in which a request can be out of order: the
//! class, the case, the bytes, the reason, and the rule that the log names.
//!
//! `H:` at the start of a case's bytes stands for a well-formed request line and Host header.

use hub_core::Reason;
use hub_gateway::front::head::{HeadLimits, HeadReader, parse};
use std::collections::HashSet;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 1024,
    uri_bytes_max: 128,
    header_count_max: 8,
};

struct Case(&'static str, &'static str, &'static str, Reason);

use Reason::{
    BadExpectation, BadFraming, BadHeader, BadHost, BadLineEnd, BadMethod, BadPath, BadSyntax,
    BadVersion, HeadTooLarge, UriTooLong,
};

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Line ends.
    Case("line end", "lf_after_request_line", "GET / HTTP/1.1\nHost: a\r\n\r\n", BadLineEnd),
    Case("line end", "lf_after_header", "GET / HTTP/1.1\r\nHost: a\n\r\n", BadLineEnd),
    Case("line end", "lf_as_the_empty_line", "H:\n", BadLineEnd),
    Case("line end", "lf_everywhere", "GET / HTTP/1.1\nHost: a\n\n", BadLineEnd),
    Case("line end", "cr_after_request_line", "GET / HTTP/1.1\rHost: a\r\n\r\n", BadLineEnd),
    Case("line end", "cr_after_header", "GET / HTTP/1.1\r\nHost: a\rA: b\r\n\r\n", BadLineEnd),
    Case("line end", "cr_in_a_value", "H:A: b\rc\r\n\r\n", BadLineEnd),
    Case("line end", "cr_at_the_end_of_a_value", "H:A: b\r\r\n\r\n", BadLineEnd),
    Case("line end", "cr_as_the_empty_line", "H:\rx", BadLineEnd),
    Case("line end", "cr_cr_lf", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BadLineEnd),
    Case("line end", "lf_cr", "GET / HTTP/1.1\n\rHost: a\r\n\r\n", BadLineEnd),
    Case("line end", "lf_in_a_name", "H:A\nB: c\r\n\r\n", BadLineEnd),
    Case("line end", "cr_in_a_name", "H:A\rB: c\r\n\r\n", BadHeader),
    Case("line end", "lf_in_a_value", "H:A: b\nTransfer-Encoding: chunked\r\n\r\n", BadLineEnd),
    Case("line end", "lf_in_the_method", "GE\nT / HTTP/1.1\r\n", BadLineEnd),
    Case("line end", "lf_in_the_target", "GET /a\nb HTTP/1.1\r\n", BadLineEnd),
    Case("line end", "lf_in_the_version", "GET / HTTP\n/1.1\r\n", BadLineEnd),
    Case("line end", "cr_in_the_version", "GET / HTTP/1\r.1\r\n", BadSyntax),

    // The request line's shape.
    Case("syntax", "an_empty_line_first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadSyntax),
    Case("syntax", "a_bare_lf_first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadSyntax),
    Case("syntax", "a_space_first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadSyntax),
    Case("syntax", "a_tls_client_hello", "\u{16}\u{3}\u{1}\u{2}", BadSyntax),
    Case("syntax", "a_nul_first", "\0", BadSyntax),
    Case("syntax", "one_word", "GET\r\n\r\n", BadSyntax),
    Case("syntax", "http_0_9", "GET /\r\n", BadSyntax),
    Case("syntax", "two_spaces_before_the_target", "GET  / HTTP/1.1\r\n", BadSyntax),
    Case("syntax", "two_spaces_before_the_version", "GET /  HTTP/1.1\r\n", BadSyntax),
    Case("syntax", "a_tab_between", "GET\t/ HTTP/1.1\r\n", BadSyntax),
    Case("syntax", "a_space_in_the_target", "GET /a b HTTP/1.1\r\n", BadSyntax),
    Case("syntax", "a_space_after_the_version", "GET / HTTP/1.1 \r\n", BadSyntax),
    Case("syntax", "words_after_the_version", "GET / HTTP/1.1 x\r\n", BadSyntax),
    Case("syntax", "a_version_without_http", "GET / 1.1\r\n", BadSyntax),
    Case("syntax", "a_version_in_lower_case", "GET / http/1.1\r\n", BadSyntax),
    Case("syntax", "another_protocol_s_version", "GET / RTSP/1.0\r\n", BadSyntax),
    Case("syntax", "a_version_without_minor", "GET / HTTP/1\r\n", BadSyntax),
    Case("syntax", "a_version_of_two_digits", "GET / HTTP/11.1\r\n", BadSyntax),
    Case("syntax", "a_minor_of_two_digits", "GET / HTTP/1.10\r\n", BadSyntax),
    Case("syntax", "a_version_with_a_comma", "GET / HTTP/1,1\r\n", BadSyntax),
    Case("syntax", "no_target_but_a_version", "GET HTTP/1.1\r\n", BadSyntax),

    // Versions.
    Case("version", "http_1_2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", BadVersion),
    Case("version", "http_2_0", "GET / HTTP/2.0\r\n\r\n", BadVersion),
    Case("version", "http_0_9_said", "GET / HTTP/0.9\r\n\r\n", BadVersion),
    Case("version", "http_3_0", "GET / HTTP/3.0\r\n\r\n", BadVersion),
    Case("version", "the_preface_of_http_2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion),

    // Methods.
    Case("method", "connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", BadMethod),
    Case("method", "connect_in_lower_case", "connect a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", BadMethod),
    Case("method", "connect_with_a_path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
    Case("method", "trace", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
    Case("method", "trace_in_mixed_case", "Trace / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
    Case("method", "not_a_token", "G@T / HTTP/1.1\r\n", BadMethod),
    Case("method", "a_colon", "GET: / HTTP/1.1\r\n", BadMethod),
    Case("method", "a_nul", "G\0T / HTTP/1.1\r\n", BadMethod),
    Case("method", "not_ascii", "G\u{c9}T / HTTP/1.1\r\n", BadMethod),
    Case("method", "longer_than_32_bytes", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", BadMethod),

    // Targets.
    Case("target", "no_slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "authority_form", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "another_scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "file_scheme", "GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "scheme_without_slashes", "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "asterisk_with_get", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "asterisk_with_more", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "only_a_query", "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_fragment_in_the_query", "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_fragment_after_the_authority", "GET http://a#c HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_tab", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_nul_in_it", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_control_byte", "GET /a\u{1}b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_delete_byte", "GET /a\u{7f}b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "not_ascii_at_all", "GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_quote_in_the_query", "GET /?a=\"b\" HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_backslash_in_the_query", "GET /?a=\\b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "angle_brackets_in_the_query", "GET /?<b> HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "half_an_escape_in_the_query", "GET /?a=%4 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "no_escape_in_the_query", "GET /?a=100% HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("target", "a_bad_digit_in_the_query", "GET /?a=%0g HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),

    // Paths.
    Case("path", "above_the_root", "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "above_the_root_later", "GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "above_the_root_escaped", "GET /%2e%2E/a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "above_the_root_half_escaped", "GET /.%2e/a HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "above_the_root_in_a_uri", "GET http://a/../b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "up_from_an_empty_segment", "GET /a//../b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "an_escaped_slash", "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "an_escaped_slash_in_upper_case", "GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "dots_and_an_escaped_slash", "GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "a_backslash", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "an_escaped_backslash", "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "dots_and_a_backslash", "GET /a/..\\b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "an_escaped_nul", "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "escaped_line_ends", "GET /a%0d%0aX:%20b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "escaped_twice", "GET /a%252fb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "dots_escaped_twice", "GET /%252e%252e/ HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "escaped_three_times", "GET /%25252f HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "escaped_twice_in_pieces", "GET /%25%32%66 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "half_an_escape", "GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "a_percent_sign", "GET /100% HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "microsoft_s_escape", "GET /%u002e HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "an_overlong_slash", "GET /a%c0%afb HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "overlong_dots", "GET /%c0%ae%c0%ae/ HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "half_a_character", "GET /a%c3 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "a_surrogate", "GET /%ed%a0%80 HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "up_with_a_parameter", "GET /a/..;/b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "up_with_an_escaped_parameter", "GET /a/..%3bx/b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "here_with_a_parameter", "GET /a/.;x=1/b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "braces", "GET /{a} HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "a_caret", "GET /a^b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "a_quote", "GET /a\"b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "angle_brackets", "GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),
    Case("path", "a_grave_accent", "GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n", BadPath),

    // Host.
    Case("host", "missing", "GET / HTTP/1.1\r\n\r\n", BadHost),
    Case("host", "missing_beside_others", "GET / HTTP/1.1\r\nA: b\r\n\r\n", BadHost),
    Case("host", "missing_beside_an_absolute_uri", "GET http://a/ HTTP/1.1\r\n\r\n", BadHost),
    Case("host", "empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", BadHost),
    Case("host", "blank", "GET / HTTP/1.1\r\nHost: \t \r\n\r\n", BadHost),
    Case("host", "none_on_1_0", "GET / HTTP/1.0\r\n\r\n", BadHost),
    Case("host", "twice", "H:Host: b\r\n\r\n", BadHost),
    Case("host", "twice_the_same", "H:host: a\r\n\r\n", BadHost),
    Case("host", "twice_on_1_0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BadHost),
    Case("host", "a_list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadHost),
    Case("host", "a_space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost),
    Case("host", "user_information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BadHost),
    Case("host", "a_path_in_it", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
    Case("host", "a_scheme_in_it", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", BadHost),
    Case("host", "a_port_too_large", "GET / HTTP/1.1\r\nHost: a:99999999\r\n\r\n", BadHost),
    Case("host", "port_65536", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", BadHost),
    Case("host", "port_0", "GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", BadHost),
    Case("host", "a_port_with_a_sign", "GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", BadHost),
    Case("host", "a_port_that_is_no_number", "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", BadHost),
    Case("host", "only_a_port", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", BadHost),
    Case("host", "two_ports", "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", BadHost),
    Case("host", "an_empty_label", "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", BadHost),
    Case("host", "only_a_dot", "GET / HTTP/1.1\r\nHost: .\r\n\r\n", BadHost),
    Case("host", "two_trailing_dots", "GET / HTTP/1.1\r\nHost: a..\r\n\r\n", BadHost),
    Case("host", "a_hyphen_first", "GET / HTTP/1.1\r\nHost: -a\r\n\r\n", BadHost),
    Case("host", "an_escape", "GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", BadHost),
    Case("host", "not_ascii_in_host", "GET / HTTP/1.1\r\nHost: \u{e9}.example\r\n\r\n", BadHost),
    Case("host", "a_wildcard", "GET / HTTP/1.1\r\nHost: *.example\r\n\r\n", BadHost),
    Case("host", "ipv4_in_three_parts", "GET / HTTP/1.1\r\nHost: 127.0.1\r\n\r\n", BadHost),
    Case("host", "ipv4_as_one_number", "GET / HTTP/1.1\r\nHost: 2130706433\r\n\r\n", BadHost),
    Case("host", "ipv4_in_hexadecimal", "GET / HTTP/1.1\r\nHost: 0x7f000001\r\n\r\n", BadHost),
    Case("host", "ipv4_out_of_range", "GET / HTTP/1.1\r\nHost: 1.2.3.256\r\n\r\n", BadHost),
    Case("host", "ipv4_in_octal", "GET / HTTP/1.1\r\nHost: 0177.0.0.1\r\n\r\n", BadHost),
    Case("host", "ipv6_without_brackets", "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", BadHost),
    Case("host", "ipv6_with_one_bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BadHost),
    Case("host", "ipv6_with_a_zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", BadHost),
    Case("host", "an_ip_of_the_future", "GET / HTTP/1.1\r\nHost: [v7.a]\r\n\r\n", BadHost),
    Case("host", "differs_from_the_uri", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
    Case("host", "port_differs_from_the_uri", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
    Case("host", "port_differs_from_the_scheme", "GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", BadHost),
    Case("host", "differs_on_1_0", "GET http://b/ HTTP/1.0\r\nHost: a\r\n\r\n", BadHost),
    Case("host", "user_information_in_the_uri", "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", BadHost),
    Case("host", "an_empty_authority", "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),

    // Header lines.
    Case("header", "folded", "H:A: b\r\n c\r\n\r\n", BadHeader),
    Case("header", "folded_with_a_tab", "H:A: b\r\n\tc\r\n\r\n", BadHeader),
    Case("header", "folded_at_once", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", BadHeader),
    Case("header", "framing_folded", "H:Transfer-Encoding:\r\n chunked\r\n\r\n", BadFraming),
    Case("header", "space_before_the_colon", "H:A : b\r\n\r\n", BadHeader),
    Case("header", "framing_with_space_before_the_colon", "H:Transfer-Encoding : chunked\r\n\r\n", BadHeader),
    Case("header", "tab_before_the_colon", "H:Content-Length\t: 1\r\n\r\n", BadHeader),
    Case("header", "space_in_the_name", "H:A B: c\r\n\r\n", BadHeader),
    Case("header", "no_colon", "H:A\r\n\r\n", BadHeader),
    Case("header", "no_name", "H:: b\r\n\r\n", BadHeader),
    Case("header", "a_name_in_quotes", "H:\"A\": b\r\n\r\n", BadHeader),
    Case("header", "a_name_in_parentheses", "H:A(B): c\r\n\r\n", BadHeader),
    Case("header", "a_name_that_is_not_ascii", "H:\u{e9}: b\r\n\r\n", BadHeader),
    Case("header", "a_nul_in_the_name", "H:A\0: b\r\n\r\n", BadHeader),
    Case("header", "a_nul_in_the_value", "H:A: b\0c\r\n\r\n", BadHeader),
    Case("header", "a_control_byte_in_the_value", "H:A: b\u{1}c\r\n\r\n", BadHeader),
    Case("header", "a_vertical_tab_in_the_value", "H:A: b\u{b}c\r\n\r\n", BadHeader),
    Case("header", "an_escape_byte_in_the_value", "H:A: \u{1b}[31m\r\n\r\n", BadHeader),
    Case("header", "a_delete_byte_in_the_value", "H:A: b\u{7f}\r\n\r\n", BadHeader),
    Case("header", "two_authorizations", "H:Authorization: a\r\nauthorization: b\r\n\r\n", BadHeader),
    Case("header", "two_content_types", "H:Content-Type: a\r\nContent-Type: b\r\n\r\n", BadHeader),
    Case("header", "two_origins", "H:Origin: http://a\r\nOrigin: http://b\r\n\r\n", BadHeader),
    Case("header", "two_websocket_keys", "H:Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: b\r\n\r\n", BadHeader),
    Case("header", "two_websocket_versions", "H:Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n\r\n", BadHeader),
    Case("header", "a_connection_option_with_a_space", "H:Connection: a b\r\n\r\n", BadHeader),
    Case("header", "ten_connection_options", "H:Connection: a,b,c,d,e\r\nConnection: f,g,h,i,j\r\n\r\n", BadHeader),
    Case("header", "a_connection_option_that_hides_the_client", "H:Connection: X-Forwarded-For\r\n\r\n", BadHeader),
    Case("header", "a_connection_option_in_quotes", "H:Connection: \"close\"\r\n\r\n", BadHeader),
    Case("header", "a_connection_option_not_ascii", "H:Connection: clos\u{e9}\r\n\r\n", BadHeader),

    // Look-alikes.
    Case("look-alike", "content_length", "H:Content_Length: 1\r\n\r\n", BadHeader),
    Case("look-alike", "transfer_encoding", "H:transfer_encoding: chunked\r\n\r\n", BadHeader),
    Case("look-alike", "tenant", "H:X_Location_Id: a\r\n\r\n", BadHeader),
    Case("look-alike", "tenant_in_part", "H:X-Location_Id: a\r\n\r\n", BadHeader),
    Case("look-alike", "tenant_with_dots", "H:X.Location.Id: a\r\n\r\n", BadHeader),
    Case("look-alike", "ours", "H:X_Hub_Subject: a\r\n\r\n", BadHeader),
    Case("look-alike", "forwarded_for", "H:x_forwarded_for: 1.1.1.1\r\n\r\n", BadHeader),
    Case("look-alike", "forwarded_anything", "H:X_Forwarded_New: 1\r\n\r\n", BadHeader),
    Case("look-alike", "real_ip", "H:X_Real_IP: 1.1.1.1\r\n\r\n", BadHeader),
    Case("look-alike", "request_id", "H:X_Request_Id: 1\r\n\r\n", BadHeader),
    Case("look-alike", "api_key", "H:X_Api_Key: 1\r\n\r\n", BadHeader),
    Case("look-alike", "signature", "H:X_GHL_Signature: 1\r\n\r\n", BadHeader),
    Case("look-alike", "original_url", "H:X_Original_URL: /admin\r\n\r\n", BadHeader),

    // Framing.
    Case("framing", "length_and_chunked", "H:Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", BadFraming),
    Case("framing", "chunked_and_length", "H:Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", BadFraming),
    Case("framing", "two_lengths", "H:Content-Length: 5\r\nContent-Length: 6\r\n\r\n", BadFraming),
    Case("framing", "two_equal_lengths", "H:Content-Length: 5\r\ncontent-length: 5\r\n\r\n", BadFraming),
    Case("framing", "a_list_of_lengths", "H:Content-Length: 5, 5\r\n\r\n", BadFraming),
    Case("framing", "an_empty_length", "H:Content-Length:\r\n\r\n", BadFraming),
    Case("framing", "a_negative_length", "H:Content-Length: -1\r\n\r\n", BadFraming),
    Case("framing", "a_length_with_a_plus", "H:Content-Length: +5\r\n\r\n", BadFraming),
    Case("framing", "a_hexadecimal_length", "H:Content-Length: 0x5\r\n\r\n", BadFraming),
    Case("framing", "a_length_with_leading_zeros", "H:Content-Length: 005\r\n\r\n", BadFraming),
    Case("framing", "a_length_with_a_point", "H:Content-Length: 5.0\r\n\r\n", BadFraming),
    Case("framing", "a_length_with_a_unit", "H:Content-Length: 5b\r\n\r\n", BadFraming),
    Case("framing", "a_length_with_a_space", "H:Content-Length: 5 5\r\n\r\n", BadFraming),
    Case("framing", "a_length_with_underscores", "H:Content-Length: 1_0\r\n\r\n", BadFraming),
    Case("framing", "a_length_in_other_digits", "H:Content-Length: \u{663}\r\n\r\n", BadFraming),
    Case("framing", "a_length_of_2_to_the_63", "H:Content-Length: 9223372036854775808\r\n\r\n", BadFraming),
    Case("framing", "a_length_of_2_to_the_64", "H:Content-Length: 18446744073709551616\r\n\r\n", BadFraming),
    Case("framing", "chunked_twice", "H:Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadFraming),
    Case("framing", "chunked_chunked", "H:Transfer-Encoding: chunked, chunked\r\n\r\n", BadFraming),
    Case("framing", "gzip_chunked", "H:Transfer-Encoding: gzip, chunked\r\n\r\n", BadFraming),
    Case("framing", "chunked_identity", "H:Transfer-Encoding: chunked, identity\r\n\r\n", BadFraming),
    Case("framing", "identity", "H:Transfer-Encoding: identity\r\n\r\n", BadFraming),
    Case("framing", "an_unknown_coding", "H:Transfer-Encoding: xchunked\r\n\r\n", BadFraming),
    Case("framing", "chunked_in_quotes", "H:Transfer-Encoding: \"chunked\"\r\n\r\n", BadFraming),
    Case("framing", "chunked_with_a_parameter", "H:Transfer-Encoding: chunked;a=b\r\n\r\n", BadFraming),
    Case("framing", "chunked_with_a_comma", "H:Transfer-Encoding: chunked,\r\n\r\n", BadFraming),
    Case("framing", "an_empty_coding", "H:Transfer-Encoding:\r\n\r\n", BadFraming),
    Case("framing", "chunked_not_ascii", "H:Transfer-Encoding: chun\u{212a}ed\r\n\r\n", BadFraming),
    Case("framing", "chunked_on_1_0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BadFraming),
    Case("framing", "length_and_chunked_on_1_0", "POST / HTTP/1.0\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", BadFraming),
    Case("framing", "connection_names_length", "H:Connection: close, Content-Length\r\nContent-Length: 1\r\n\r\n", BadFraming),
    Case("framing", "connection_names_encoding", "H:Connection: transfer-encoding\r\n\r\n", BadFraming),
    Case("framing", "connection_names_host", "H:Connection: host\r\n\r\n", BadFraming),

    // Expectations.
    Case("expect", "unknown", "H:Expect: 200-ok\r\n\r\n", BadExpectation),
    Case("expect", "empty_expectation", "H:Expect:\r\n\r\n", BadExpectation),
    Case("expect", "a_list_of_expectations", "H:Expect: 100-continue, x\r\n\r\n", BadExpectation),
    Case("expect", "twice_expected", "H:Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", BadExpectation),

    // Sizes; the others are in the parser's own tests.
    Case("size", "nine_headers_of_eight", "H:A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n", HeadTooLarge),
];

fn bytes(text: &str) -> Vec<u8> {
    text.replace("H:", "POST / HTTP/1.1\r\nHost: a\r\n")
        .into_bytes()
}

#[test]
fn every_case_is_refused_for_its_reason_and_names_its_rule() {
    for Case(class, name, text, expected) in CASES {
        let text = if text.starts_with("H:") {
            bytes(text)
        } else {
            text.as_bytes().to_vec()
        };
        match parse(&text, &LIMITS) {
            Err(refusal) => {
                assert_eq!(refusal.reason, *expected, "{class}: {name}: {refusal:?}");
                assert!(refusal.detail.is_some(), "{class}: {name} names no rule");
                assert!(
                    refusal.reason.closes(),
                    "{class}: {name} leaves the connection open"
                );
            }
            Ok(found) => panic!("{class}: {name} is accepted: {found:?}"),
        }
    }
}

#[test]
fn every_case_is_refused_byte_by_byte_too() {
    for Case(class, name, text, expected) in CASES {
        let text = if text.starts_with("H:") {
            bytes(text)
        } else {
            text.as_bytes().to_vec()
        };
        let mut reader = HeadReader::new(LIMITS);
        let refused = (1..=text.len()).find_map(|len| match reader.advance(&text[..len]) {
            Ok(None) => None,
            Ok(Some(_)) => panic!("{class}: {name} is accepted"),
            Err(refusal) => Some(refusal.reason),
        });
        assert_eq!(refused, Some(*expected), "{class}: {name}");
    }
}

#[test]
fn there_are_enough_cases_and_no_two_share_a_name() {
    let names: HashSet<_> = CASES.iter().map(|case| case.1).collect();
    assert_eq!(names.len(), CASES.len());
    println!(
        "{} cases in {} classes",
        CASES.len(),
        CASES
            .iter()
            .map(|case| case.0)
            .collect::<HashSet<_>>()
            .len()
    );
    assert!(CASES.len() >= 150, "{}", CASES.len());
}

#[test]
fn oversize_targets_and_heads_are_refused_while_they_come() {
    let target = format!("GET /{}", "a".repeat(128));
    assert_eq!(
        parse(target.as_bytes(), &LIMITS)
            .map_err(|e| e.reason)
            .err(),
        Some(UriTooLong)
    );
    let cookie = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}", "a".repeat(1024));
    assert_eq!(
        parse(cookie.as_bytes(), &LIMITS)
            .map_err(|e| e.reason)
            .err(),
        Some(HeadTooLarge)
    );
}

#[test]
#[rustfmt::skip]
fn what_looks_odd_but_is_in_order_is_accepted() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.0\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?q=[a]{b}|c^`?/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a;b=c/d,e:f@g HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:a.\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
        "H:TE: trailers, deflate;q=0.5\r\n\r\n",
        "H:my_header: 1\r\n\r\n",
        "H:X-Utf8: caf\u{e9}\r\n\r\n",
        "H:X-Empty:\r\n\r\n",
        "H:Connection: close, X-Location-Id\r\n\r\n",
        "H:Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\n\r\n",
        "H:Content-Length: 0\r\n\r\n",
        "H:Expect: 100-CONTINUE\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "H:A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
    ] {
        let text = if text.starts_with("H:") { bytes(text) } else { text.as_bytes().to_vec() };
        assert!(matches!(parse(&text, &LIMITS), Ok(Some(_))), "{}", text.escape_ascii());
    }
}
