//! `ip`: clients that rules let in and keep out, and lists of networks that change while Weir runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod e2e;

use std::fs;
use std::path::Path;

use e2e::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\n";

/// The answer to a request from a loopback address.
fn ask_from(weir: &Weir, client: &str, request: &str) -> Message {
    let local = format!("{client}:0").parse().unwrap();
    let mut client = Conn::from_to(local, weir.address);
    client.send(request);
    client.response()
}

#[track_caller]
fn assert_denied(answer: &Message) {
    answer.expect_refusal(403, "ip_denied", "http_request_denied");
}

#[test]
fn rules_of_all_levels_must_let_a_client_in() {
    let weir = Weir::start(
        r#"
ip = { deny = ["127.0.0.66", "::/0"] }
[policy.office]
ip = { allow = ["127.0.1.0/24", "127.0.0.66"], deny = "127.0.1.128/25" }
[listen."127.0.0.1:0"]
[[route]]
match = "/*"
respond = "all"
[[route]]
match = "/office"
respond = "office"
use = "office"
[[route]]
match = "/open"
respond = "open"
ip = "off"
"#,
    );
    for (client, path, passes) in [
        ("127.0.0.5", "/", true),
        ("127.0.0.66", "/", false),
        ("127.0.1.1", "/office", true),
        ("127.0.1.200", "/office", false),
        ("127.0.0.5", "/office", false),
        ("127.0.0.66", "/office", false),
        ("127.0.0.66", "/open", true),
    ] {
        let request = GET.replace("GET /", &format!("GET {path}"));
        let answer = ask_from(&weir, client, &request);
        match passes {
            true => assert_eq!(answer.status(), 200, "{client} {path}"),
            false => assert_denied(&answer),
        }
    }
    let entry = weir.entry_where("a refusal", |entry| entry.number("status") == 403.0);
    assert_eq!(entry.text("policy"), "ip");
    assert_eq!(entry.text("reason"), "ip_denied");
}

#[test]
fn a_trusted_proxy_names_the_client() {
    let weir = Weir::start(
        r#"
trusted_proxies = "127.0.0.1"
[listen."127.0.0.1:0"]
[[route]]
match = "/*"
respond = "hello"
ip = { deny = ["192.0.2.0/24", "2001:db8::/32"] }
"#,
    );
    let naming = |client: &str| {
        GET.replace(
            "Connection",
            &format!("X-Forwarded-For: {client}\r\nConnection"),
        )
    };
    assert_denied(&ask_from(&weir, "127.0.0.1", &naming("192.0.2.1")));
    assert_denied(&ask_from(&weir, "127.0.0.1", &naming("[2001:db8::1]:5")));
    assert_denied(&ask_from(&weir, "127.0.0.1", &naming("::ffff:192.0.2.1")));
    let other = ask_from(&weir, "127.0.0.1", &naming("198.51.100.1"));
    assert_eq!(other.status(), 200);
    // Weir drops the field of a peer that is not trusted.
    let forged = ask_from(&weir, "127.0.0.2", &naming("192.0.2.1"));
    assert_eq!(forged.status(), 200);
}

#[test]
fn the_rules_of_a_listener_cover_requests_without_a_route() {
    let weir = Weir::start(
        r#"
[listen."127.0.0.1:0"]
redirect_https = true
ip = { allow = "127.0.0.5" }
[[route]]
match = "only.test/"
respond = "hello"
ip = "off"
"#,
    );
    assert_eq!(ask_from(&weir, "127.0.0.5", GET).status(), 308);
    assert_denied(&ask_from(&weir, "127.0.0.6", GET));
}

#[test]
fn a_client_on_a_unix_socket_is_in_no_network() {
    let dir = Weir::dir();
    let socket = dir.join("http.sock");
    let _weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\n[listen.\"unix:{}\"]\n\
             [[route]]\nmatch = \"/deny\"\nrespond = \"a\"\nip = {{ deny = [\"0.0.0.0/0\", \"::/0\"] }}\n\
             [[route]]\nmatch = \"/allow\"\nrespond = \"b\"\nip = {{ allow = [\"0.0.0.0/0\", \"::/0\"] }}\n",
            socket.display()
        ),
    );
    let ask = |path: &str| {
        let mut client = Conn::to_unix(&socket);
        client.send(GET.replace("GET /", &format!("GET {path}")));
        client.response()
    };
    assert_eq!(ask("/deny").status(), 200);
    assert_denied(&ask("/allow"));
}

#[test]
fn the_rules_of_the_top_level_cover_requests_without_a_route() {
    let config = "ip = { deny = \"127.0.0.66\" }\n[listen.\"127.0.0.1:0\"]\n\
                  [[route]]\nmatch = \"only.test/\"\nrespond = \"hello\"\n";
    let weir = Weir::start(config);
    let without = ask_from(&weir, "127.0.0.5", GET);
    without.expect_refusal(404, "no_route", "destination_not_found");
    assert_denied(&ask_from(&weir, "127.0.0.66", GET));
    let redirecting = config.replace(":0\"]", ":0\"]\nredirect_https = true");
    let weir = Weir::start(&redirecting);
    assert_eq!(ask_from(&weir, "127.0.0.5", GET).status(), 308);
    assert_denied(&ask_from(&weir, "127.0.0.66", GET));
}

/// Replaces a list in one step.
fn write_list(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, path).unwrap();
}

fn wait_for_metric(weir: &Weir, name: &str, value: f64) {
    eventually(name, || (weir.metric(name) == value).then_some(()));
}

#[test]
fn changed_lists_take_effect_and_broken_ones_do_not() {
    let dir = Weir::dir();
    let list = dir.join("blocked.txt");
    fs::write(&list, "# Nobody yet.\n").unwrap();
    let config = "[listen.\"127.0.0.1:0\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n\
                  ip = { deny = [\"127.0.0.9\", \"@blocked.txt\"] }\n";
    let weir = Weir::start_in(&dir, config);
    let status = |client: &str| ask_from(&weir, client, GET).status();
    assert_eq!((status("127.0.0.5"), status("127.0.0.9")), (200, 403));

    write_list(&list, "127.0.0.4/30 # Four of them.\n198.51.100.0/24\n");
    wait_for_metric(&weir, "weir_ip_lists_loaded_total", 1.0);
    assert_eq!((status("127.0.0.5"), status("127.0.0.9")), (403, 403));
    assert_eq!(status("127.0.0.8"), 200);
    let name = format!("weir_ip_list_networks{{file=\"{}\"}}", list.display());
    assert_eq!(weir.metric(&name), 2.0);

    // The former list stays.
    write_list(&list, "127.0.0.8\nlocalhost\n");
    wait_for_metric(&weir, "weir_ip_lists_failed_total", 1.0);
    assert_eq!((status("127.0.0.5"), status("127.0.0.8")), (403, 200));
    weir.wait_for("a changed list of networks cannot be used");
    weir.wait_for("blocked.txt:2:1");
    let health = weir.admin("/healthz?verbose").text();
    assert!(health.contains("`localhost` is not a network"), "{health}");
    fs::remove_file(&list).unwrap();
    wait_for_metric(&weir, "weir_ip_lists_failed_total", 2.0);
    assert_eq!((status("127.0.0.5"), status("127.0.0.8")), (403, 200));

    write_list(&list, "127.0.0.8\n");
    wait_for_metric(&weir, "weir_ip_lists_loaded_total", 2.0);
    assert_eq!((status("127.0.0.5"), status("127.0.0.8")), (200, 403));
    let health = weir.admin("/healthz?verbose").text();
    assert!(!health.contains("list of networks"), "{health}");

    // A reload reads the lists too, and refuses what a start would refuse.
    write_list(&list, "127.0.0.5\nlocalhost\n");
    weir.reload(config);
    wait_for_metric(&weir, "weir_reload_failed_total", 1.0);
    write_list(&list, "127.0.0.5\n");
    weir.reload(config);
    wait_for_metric(&weir, "weir_reload_total", 1.0);
    assert_eq!((status("127.0.0.5"), status("127.0.0.8")), (403, 200));
}

#[test]
fn check_reads_the_lists() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    fs::write(
        &file,
        "[listen.\"127.0.0.1:8080\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n\
         ip = { allow = \"@office.txt\" }\n\
         [[test]]\nrequest = \"GET http://a.test/\"\nclient_ip = \"192.0.2.1\"\nstatus = 403\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, said) = run_weir(&["check", file]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("office.txt: No such file"), "{said}");
    assert!(said.contains("weir.toml:5:16"), "{said}");
    let (code, said) = run_weir(&["check", "--elsewhere", file]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("1 missing list of networks not read"),
        "{said}"
    );

    let list = dir.join("office.txt");
    fs::write(&list, "10.0.0.0/8\n\n10.0.0.1/8\n").unwrap();
    let (code, said) = run_weir(&["check", file]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("office.txt:3:1"), "{said}");
    assert!(
        said.contains("write \"10.0.0.0/8\" or \"10.0.0.1\""),
        "{said}"
    );

    fs::write(&list, "192.0.2.0/24\n").unwrap();
    let (code, said) = run_weir(&["check", file]);
    assert_eq!(code, Some(3), "the test asks for 403: {said}");
    let explain = |client: &str| {
        let arguments = [
            "explain",
            file,
            "GET",
            "http://a.test/",
            "--client-ip",
            client,
        ];
        run_weir(&arguments).1
    };
    let said = explain("192.0.2.1");
    assert!(
        said.contains("ip passes: 192.0.2.1 is in 192.0.2.0/24, which"),
        "{said}"
    );
    let said = explain("198.51.100.1");
    assert!(
        said.contains("ip refuses: 198.51.100.1 is in no network"),
        "{said}"
    );
    assert!(said.contains("403, reason ip_denied"), "{said}");
    fs::remove_dir_all(&dir).unwrap();
}
