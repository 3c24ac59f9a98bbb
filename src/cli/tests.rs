use std::num::NonZeroU32;

use lexopt::Parser;
use weir_config::Cores;

use super::proxy::parse_cores;
use super::*;

fn run(args: &[&str]) -> CommandResult {
    dispatch(&mut Parser::from_args(args))
}

fn usage(args: &[&str]) -> String {
    match run(args) {
        Err(CommandError::Usage(why)) => why,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn wrong_usage_says_what_to_do() {
    assert!(usage(&[]).contains("a command is missing"));
    assert!(usage(&["rnu"]).contains("did you mean \"run\""));
    for (command, hint) in [
        ("start", "write \"run\""),
        ("validate", "write \"check\""),
        ("restart", "weir reload"),
        ("stop", "SIGTERM"),
    ] {
        assert!(usage(&[command]).contains(hint), "{command}");
    }
    assert!(usage(&["\u{e9}t\u{e9}"]).contains("no command"));
    assert!(usage(&["run"]).contains("weir run FILE"));
    assert!(usage(&["run", "a", "b"]).contains("\"b\""));
    assert!(usage(&["run", "--fast", "a"]).contains("--fast"));
    assert!(usage(&["proxy", "127.0.0.1:0"]).contains("at least one endpoint"));
    assert!(usage(&["proxy", "nonsense"]).contains("LISTEN"));
    assert!(
        usage(&[
            "proxy",
            "127.0.0.1:0",
            "127.0.0.1:1",
            "--access-log",
            "here"
        ])
        .contains("absolute path")
    );
    assert!(usage(&["explain", "edge.toml", "GET"]).contains("a URL"));
    assert!(usage(&["schema", "x"]).contains("unexpected"));
}

#[test]
fn a_file_that_is_not_there_is_a_config_error() {
    match run(&["check", "/nonexistent/edge.toml"]) {
        Err(CommandError::Config(why)) => {
            assert!(why.contains("cannot read /nonexistent/edge.toml"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn cores_are_a_number_or_a_list() {
    let count = |n| Cores::Count(NonZeroU32::new(n).unwrap());
    assert_eq!(parse_cores("auto").unwrap(), Cores::Auto);
    assert_eq!(parse_cores("4").unwrap(), count(4));
    assert_eq!(parse_cores("0-0").unwrap(), Cores::Set(vec![0]));
    assert_eq!(
        parse_cores("10,2-4,3").unwrap(),
        Cores::Set(vec![2, 3, 4, 10])
    );
    for wrong in ["0", "", "a", "4-2", "1,", "5000", "0-999999999", "-1"] {
        assert!(parse_cores(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_command_has_help() {
    for command in [
        "demo",
        "proxy",
        "run",
        "check",
        "explain",
        "schema",
        "reference",
    ] {
        assert!(help::MAIN.contains(&format!("\n  {command} ")), "{command}");
        assert!(run(&[command, "--help"]).is_ok());
        assert!(run(&["help", command]).is_ok());
    }
}
