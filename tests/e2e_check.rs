//! `weir check` and a reload refuse what a start refuses, with the same words.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod e2e;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use e2e::*;

const ROUTE: &str = "[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n";

/// Tries a file with `run`, `check` and a reload of a running process.
fn assert_refused_by_all(dir: &Path, running: &Weir, text: &str, why: &str) {
    let file = dir.join("other.toml");
    fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let (code, said) = run_weir(&["check", name]);
    assert!(
        code == Some(3) && said.contains(why),
        "check: {said}\n{text}"
    );
    let (code, said) = run_weir(&["run", name]);
    assert!(code != Some(0) && said.contains(why), "run: {said}\n{text}");
    let failed = running.metric("weir_reload_failed_total");
    running.reload(text);
    eventually("the refusal", || {
        (running.metric("weir_reload_failed_total") > failed).then_some(())
    });
    let verbose = running.admin("/healthz?verbose").text();
    assert!(verbose.contains(why), "reload: {verbose}\n{text}");
}

#[test]
fn overlapping_addresses_are_refused() {
    let dir = Weir::dir();
    // The running process already has the port, so the system would allow the reload.
    let port = free_address("127.0.0.8").port();
    let running = Weir::start(&format!("[listen.\"127.0.0.1:{port}\"]\n{ROUTE}"));
    for (a, b) in [
        ("127.0.0.1", "0.0.0.0"),
        ("[::1]", "[::]"),
        ("127.0.0.1", "0.0.0.0"),
    ] {
        let text = format!("[listen.\"{a}:{port}\"]\n[listen.\"{b}:{port}\"]\n{ROUTE}");
        assert_refused_by_all(&dir, &running, &text, "overlaps with the listener");
        let text = format!("admin = \"{b}:{port}\"\n[listen.\"{a}:{port}\"]\n{ROUTE}");
        assert_refused_by_all(&dir, &running, &text, "overlaps with the listener");
    }
    let text = format!("admin = \"127.0.0.1:{port}\"\n[listen.\"127.0.0.1:{port}\"]\n{ROUTE}");
    assert_refused_by_all(&dir, &running, &text, "is the address of the listener");
    let text = format!("[listen.\"[::ffff:127.0.0.1]:{port}\"]\n{ROUTE}");
    assert_refused_by_all(&dir, &running, &text, "write \"127.0.0.1:");
    let text = format!(
        "[listen.\"unix:{0}/a\"]\n[listen.\"unix:{0}//x/../a\"]\n{ROUTE}",
        dir.display()
    );
    assert_refused_by_all(&dir, &running, &text, "a second listener");
    // Files that start also reload: listeners of both families, and an admin listener that takes over a port.
    let text = format!(
        "admin = \"127.0.0.2:0\"\n[listen.\"0.0.0.0:{port}\"]\n[listen.\"[::]:{port}\"]\n{ROUTE}"
    );
    running.reload(&text);
    running.wait_for("reload: listening on ");
    assert_eq!(running.ask(get("/")).text(), "hello");
    let other = free_address("127.0.0.8").port();
    running.reload(&format!(
        "admin = \"127.0.0.1:{port}\"\n[listen.\"127.0.0.1:{other}\"]\n{ROUTE}"
    ));
    running.wait_for("plan 3: ");
    eventually("health", || {
        let mut client = Conn::to(([127, 0, 0, 1], port).into());
        client.send("GET /healthz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        (client.response().text() == "serving\n").then_some(())
    });
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_this_machine_lacks_is_refused() {
    let dir = Weir::dir();
    let path = |name: &str| dir.join(name).display().to_string();
    fs::write(dir.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&dir, dir.join("link")).unwrap();
    let running = Weir::start(ROUTE);
    let listen = |address: &str| format!("[listen.\"{address}\"]\n{ROUTE}");
    for (text, why) in [
        (
            format!("cores = \"0,1023\"\n{}", listen("127.0.0.1:0")),
            "may not use processor 1023",
        ),
        (listen("192.0.2.1:80"), "no interface of this machine"),
        (
            format!("admin = \"192.0.2.1:80\"\n{}", listen("127.0.0.1:0")),
            "admin: cannot listen on 192.0.2.1:80",
        ),
        (
            listen(&format!("unix:{}", path("none/a"))),
            "none is missing",
        ),
        (
            listen(&format!("unix:{}", path("file"))),
            "exists and is not a socket",
        ),
        (
            format!(
                "admin = \"unix:{}\"\n{}",
                path("none/a"),
                listen("127.0.0.1:0")
            ),
            "none is missing",
        ),
        (
            format!(
                "access_log = {:?}\n{}",
                path("none/log"),
                listen("127.0.0.1:0")
            ),
            "cannot open the access log",
        ),
    ] {
        assert_refused_by_all(&dir, &running, &text, why);
    }
    // These would start and then fail.
    let (socket, same) = (path("socket"), path("link/socket"));
    let own = path("other.toml");
    for (text, why) in [
        (
            format!("[listen.\"unix:{socket}\"]\n[listen.\"unix:{same}\"]\n{ROUTE}"),
            "is the same file as",
        ),
        (
            format!("access_log = {own:?}\n{}", listen("127.0.0.1:0")),
            "which Weir reads",
        ),
        (
            format!(
                "access_log = {socket:?}\n{}",
                listen(&format!("unix:{same}"))
            ),
            "listens there",
        ),
    ] {
        fs::write(&own, &text).unwrap();
        let (code, said) = run_weir(&["check", &own]);
        assert!(code == Some(3) && said.contains(why), "{said}\n{text}");
        let (code, said) = run_weir(&["check", &own, "--elsewhere"]);
        assert_eq!(code, Some(0), "{said}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_port_of_another_program_is_refused_and_one_of_the_running_weir_is_not() {
    let dir = Weir::dir();
    let socket = dir.join("socket");
    let tcp = std::net::TcpListener::bind("127.0.0.8:0").unwrap();
    let _unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let running = Weir::start(ROUTE);
    let port = tcp.local_addr().unwrap().port();
    for address in [
        format!("127.0.0.8:{port}"),
        format!("0.0.0.0:{port}"),
        format!("unix:{}", socket.display()),
    ] {
        let text = format!("[listen.\"{address}\"]\n{ROUTE}");
        assert_refused_by_all(&dir, &running, &text, "cannot listen on");
        let text = format!("admin = \"{address}\"\n[listen.\"127.0.0.1:0\"]\n{ROUTE}");
        assert_refused_by_all(&dir, &running, &text, "admin: cannot listen on");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_unwritable_pid_file_is_refused() {
    let dir = Weir::dir();
    let path = |name: &str| dir.join(name).display().to_string();
    fs::write(dir.join("text"), "something else").unwrap();
    for (file, more, why) in [
        (path("none/pid"), String::new(), "No such file"),
        (path("text"), String::new(), "something else"),
        (dir.display().to_string(), String::new(), "directory"),
        (
            path("log"),
            format!("access_log = {:?}\n", path("log")),
            "the access log is there",
        ),
        (
            path("socket"),
            format!("[listen.\"unix:{}\"]\n", path("socket")),
            "listens there",
        ),
    ] {
        let name = path("other.toml");
        let text = format!("pid_file = {file:?}\n{more}[listen.\"127.0.0.1:0\"]\n{ROUTE}");
        fs::write(&name, &text).unwrap();
        let (code, said) = run_weir(&["check", &name]);
        let is_said = said.contains("cannot write pid_file") && said.contains(why);
        assert!(code == Some(3) && is_said, "{said}\n{text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_check_leaves_nothing_behind_and_the_running_process_alone() {
    let dir = Weir::dir();
    let (socket, log) = (dir.join("socket"), dir.join("log"));
    let text = format!(
        "access_log = {log:?}\n[listen.\"unix:{}\"]\n[listen.\"127.0.0.1:0\"]\n{ROUTE}",
        socket.display()
    );
    let file = dir.join("other.toml");
    fs::write(&file, &text).unwrap();
    let check = || run_weir(&["check", file.to_str().unwrap()]);
    assert_eq!(check().0, Some(0));
    assert!(!socket.exists() && !log.exists());
    let port = free_address("127.0.0.8").port();
    let text = format!("{text}[listen.\"127.0.0.1:{port}\"]\n");
    fs::write(&file, &text).unwrap();
    let running = Weir::start_in(&dir, &text);
    for _ in 0..3 {
        let (code, said) = check();
        assert_eq!(code, Some(0), "{said}");
        let mut client = Conn::to_unix(&socket);
        client.send(get("/"));
        assert_eq!(client.response().text(), "hello");
        let mut client = Conn::to(([127, 0, 0, 1], port).into());
        client.send(get("/"));
        assert_eq!(client.response().text(), "hello");
    }
    drop(running);
}

#[test]
fn ten_thousand_failing_tests_are_reported_quickly_and_briefly() {
    let dir = Weir::dir();
    let file = dir.join("many.toml");
    let mut text = String::from("[listen.\"127.0.0.1:0\"]\n");
    for n in 0..10_000 {
        text += &format!("[[route]]\nmatch = \"/r{n}\"\nrespond = 200\n");
        text +=
            &format!("[[test]]\nrequest = \"GET http://a/r{n}\"\nroute = \"/r0\"\nstatus = 404\n");
    }
    fs::write(&file, text).unwrap();
    let begun = std::time::Instant::now();
    let output: Output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["check", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("9980 more tests fail"), "{said}");
    assert!(said.matches("expected").count() <= 20 && said.len() < 10_000);
    // A fraction of the time that a walk over the file and all routes would cost each test. This build is not
    // optimised.
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn explain_and_check_on_another_machine_need_no_key_files() {
    let dir = Weir::dir();
    let file = dir.join("edge.toml");
    let tls = "tls = { cert = \"no.pem\", key = \"no.key\", client_ca = \"none.pem\" }";
    let upstream =
        "[upstream.api]\nservers = [\"https://127.0.0.1:1\"]\ntls = { ca = \"ca.pem\" }\n";
    let text = format!("[listen.\"127.0.0.1:0\"]\n{tls}\n{upstream}{ROUTE}");
    fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let (code, said) = run_weir(&["check", name]);
    assert!(code == Some(3) && said.contains("no.key"), "{said}");
    let (code, said) = run_weir(&["check", name, "--elsewhere"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("4 missing files"), "{said}");
    let (code, said) = run_weir(&["explain", name, "GET", "https://a.test/"]);
    assert!(code == Some(0) && said.contains("answer     200"), "{said}");
    // Key files that exist are still checked.
    fs::write(dir.join("no.key"), "nonsense").unwrap();
    let (code, said) = run_weir(&["check", name, "--elsewhere"]);
    assert!(code == Some(3) && said.contains("no private key"), "{said}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn check_on_another_machine_names_the_files_that_policies_miss() {
    let dir = Weir::dir();
    let file = dir.join("edge.toml");
    fs::write(dir.join("here.txt"), "192.0.2.1\n").unwrap();
    let jwt =
        |keys: &str| format!("{{ issuer = \"https://idp.test/\", audience = \"any\", {keys} }}");
    let text = format!(
        "ip = {{ deny = [\"@here.txt\", \"@gone.txt\"] }}\nerrors.404 = {{ file = \"404.html\" }}\n\
         [listen.\"127.0.0.1:0\"]\n{ROUTE}jwt = {}\n\
         [[route]]\nmatch = \"/b\"\nrespond = 204\njwt = {}\n\
         [[route]]\nmatch = \"/c\"\nrespond = 204\njwt = {}\n",
        jwt("jwks_file = \"set.json\""),
        jwt("key_file = \"key.pem\""),
        jwt("secret_file = \"secret\""),
    );
    fs::write(&file, text).unwrap();
    let (code, said) = run_weir(&["check", file.to_str().unwrap(), "--elsewhere"]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "; 3 missing files of token keys not read",
        "; 1 missing list of networks not read",
        "; 1 missing page of `errors` not read",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let named = said.lines().find(|line| line.starts_with("missing here: "));
    let named = named.unwrap();
    for name in ["set.json", "key.pem", "secret", "gone.txt", "404.html"] {
        assert!(named.contains(&format!("/{name}")), "{name}: {named}");
    }
    assert!(!named.contains("here.txt"), "{named}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn each_unusable_key_has_its_own_error() {
    let dir = Weir::dir();
    let issued = Authority::new("keys").sign(&["a.test"]);
    let pair = issued.write(&dir, "a");
    let (file, key) = (dir.join("edge.toml"), dir.join("a.key"));
    fs::write(
        &file,
        format!("[listen.\"127.0.0.1:0\"]\ntls = {{ {pair} }}\n{ROUTE}"),
    )
    .unwrap();
    let body = issued.key.lines().nth(1).unwrap();
    let pem = |label: &str, text: &str| {
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let older = format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n{body}");
    let other = Authority::new("other").sign(&["b.test"]).key;
    for (text, why) in [
        (pem("ENCRYPTED PRIVATE KEY", body), "by a passphrase"),
        (pem("EC PRIVATE KEY", &older), "by a passphrase"),
        (pem("RSA PRIVATE KEY", &older), "by a passphrase"),
        (pem("PRIVATE KEY", "MAA="), "RSA of 2048 to 8192 bits"),
        (issued.cert.clone(), "no private key"),
        (other, "not the key of the certificate"),
    ] {
        fs::write(&key, &text).unwrap();
        let (code, said) = run_weir(&["check", file.to_str().unwrap()]);
        assert!(code == Some(3) && said.contains(why), "{said}\n{text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn low_limits_of_the_machine_are_reported_before_a_start() {
    let dir = Weir::dir();
    let file = dir.join("edge.toml");
    fs::write(
        &file,
        format!("[listen.\"127.0.0.1:0\"]\nconnections = 5_000\n{ROUTE}"),
    )
    .unwrap();
    for (files, why) in [
        (64, "64 are too few even for"),
        (2_000, "fewer than the 5000 of `connections`"),
    ] {
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("ulimit -n {files}; exec \"$0\" check \"$1\""),
            ])
            .arg(env!("CARGO_BIN_EXE_weir"))
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(why), "{said}");
    }
    fs::remove_dir_all(dir).unwrap();
}
