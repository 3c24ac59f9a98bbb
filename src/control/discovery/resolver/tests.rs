use std::time::Duration;

use super::super::dns::AddressFamily;
use super::*;

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn found(addresses: &[&str], missing: Option<AddressFamily>) -> Result<FoundAddresses, String> {
    Ok(FoundAddresses {
        addresses: ips(addresses),
        ttl: Duration::from_secs(30),
        missing,
    })
}

fn source(endpoints: &[&str]) -> SourceAnswer {
    let endpoints = endpoints.iter().map(|one| one.parse().unwrap());
    SourceAnswer {
        outcome: Ok(Found::Endpoints(endpoints.collect())),
        cursor: Cursor::default(),
        age: None,
    }
}

fn failed(why: &str) -> SourceAnswer {
    SourceAnswer {
        outcome: Err(why.to_owned()),
        cursor: Cursor::default(),
        age: None,
    }
}

fn config(servers: &str) -> Config {
    let text = format!(
        "[listen.\"127.0.0.1:8080\"]\n[upstream.app]\nservers = {servers}\n\
         [upstream.other]\nservers = {servers}\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n[[route]]\nmatch = \"/o/*\"\nto = \"other\"\n"
    );
    weir_config::parse("t.toml", &text).unwrap().0
}

#[test]
fn a_name_that_fails_keeps_its_addresses_and_is_logged_once() {
    let resolver = Resolver::default();
    assert_eq!(resolver.note_name("a", found(&["10.0.0.1"], None)), None);
    let version = resolver.version();
    let line = resolver.note_name("a", Err("down".to_owned()));
    let wanted = "a is not found now: down; it keeps 10.0.0.1".to_owned();
    assert_eq!(line, Some(LogLine::Warning(wanted)));
    assert_eq!(resolver.note_name("a", Err("down".to_owned())), None);
    assert_eq!(resolver.version(), version, "nothing has changed");
    let config = config("[\"a:80\"]");
    let recalled = resolver.recall(&config);
    assert_eq!(recalled.kept("a"), Some(("down", &ips(&["10.0.0.1"])[..])));
    let set = recalled.endpoints(&config).unwrap();
    assert_eq!(set.count(), 2);
    let line = resolver.note_name("a", found(&["10.0.0.2"], None));
    assert!(matches!(line, Some(LogLine::Info(line)) if line.starts_with("found a after ")));
    assert_eq!(resolver.version(), version + 1);
    let line = resolver.note_name("a", found(&["10.0.0.3"], None));
    let wanted = "a has changed from 10.0.0.2 to 10.0.0.3".to_owned();
    assert_eq!(line, Some(LogLine::Info(wanted)));
}

#[test]
fn a_family_that_cannot_be_asked_for_keeps_its_addresses() {
    let resolver = Resolver::default();
    resolver.note_name("a", found(&["10.0.0.1", "::1"], None));
    resolver.note_name("a", found(&["10.0.0.2"], Some(AddressFamily::V6)));
    let known = |resolver: &Resolver| resolver.with(|memory| memory.names["a"].good.clone());
    assert_eq!(known(&resolver), Some(ips(&["10.0.0.2", "::1"])));
    resolver.note_name("a", found(&["10.0.0.2"], None));
    assert_eq!(known(&resolver), Some(ips(&["10.0.0.2"])));
}

#[test]
fn a_source_that_fails_changes_nothing_and_is_counted() {
    let config = config("[\"file:///x\", \"10.0.0.9:80\"]");
    let resolver = Resolver::default();
    let count = |resolver: &Resolver| resolver.recall(&config).endpoints(&config).unwrap().count();
    assert_eq!(count(&resolver), 2, "those of the file alone");
    let line = resolver.note_source("file:///x", failed("gone"));
    let wanted = "file:///x gives no endpoints: gone".to_owned();
    assert_eq!(line, Some(LogLine::Warning(wanted)));
    // The endpoint that the upstream has itself counts once.
    let answer = source(&["10.0.0.9:80", "10.0.0.1:80", "10.0.0.2:80"]);
    assert!(resolver.note_source("file:///x", answer).is_some());
    assert_eq!(count(&resolver), 6);
    let version = resolver.version();
    let line = resolver.note_source("file:///x", failed("it has no endpoint"));
    let wanted = "file:///x gives no endpoints: it has no endpoint; it keeps 3 endpoints";
    assert_eq!(line, Some(LogLine::Warning(wanted.to_owned())));
    assert_eq!(resolver.note_source("file:///x", failed("again")), None);
    assert_eq!((count(&resolver), resolver.version()), (6, version));
    assert_eq!(resolver.with(|m| m.sources["file:///x"].record.failures), 3);
    let line = resolver.note_source("file:///x", source(&["10.0.0.2:80", "10.0.0.3:80"]));
    let Some(LogLine::Info(line)) = line else {
        panic!("{line:?}");
    };
    assert!(line.ends_with(": 2 endpoints, 1 new, 2 gone"), "{line}");
}

#[test]
fn each_name_and_source_is_asked_once_however_many_upstreams_have_it() {
    let config = config("[\"file:///x\", \"a:80\", \"a:81\", \"b:80\"]");
    let resolver = Resolver::default();
    let wanted = resolver.wanted(&config);
    let due = resolver.take_due(&wanted, 64);
    assert_eq!((due.hosts.len(), due.sources.len()), (2, 1));
    let again = resolver.take_due(&wanted, 64);
    assert_eq!((again.hosts.len(), again.sources.len()), (0, 0));
    // Names in the answer of a source are wanted too.
    resolver.note_source("file:///x", source(&["c:80", "a:1"]));
    let hosts = resolver.wanted(&config).hosts;
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_reload_keeps_what_the_new_file_has_and_forgets_the_rest() {
    let resolver = Resolver::default();
    resolver.note_source("file:///x", source(&["a:80"]));
    resolver.note_source("file:///y", source(&["b:80"]));
    for name in ["a", "b", "c"] {
        resolver.note_name(name, found(&["10.0.0.1"], None));
    }
    resolver.forget_others(&config("[\"file:///x\", \"c:80\"]"));
    resolver.with(|memory| {
        assert_eq!(memory.names.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(memory.sources.keys().collect::<Vec<_>>(), ["file:///x"]);
    });
}
