//! What a route has of `limit` and `concurrency`.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

fn config(text: &str) -> weir_config::Config {
    let text = format!("{text}\n[upstream]\na = [\"10.0.0.1:80\"]\n");
    match weir_config::parse("test.toml", &text) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{}", weir_config::to_text(&errors)),
    }
}

#[test]
fn limits_of_all_levels_add_up_and_keep_their_place() {
    let config = config(
        "limit = \"100/s\"\nconcurrency = \"50 per ip\"\n\
         [policy.slow]\nlimit = [\"10/s per route\", { rate = \"1/m\", name = \"min\" }]\n\
         [listen.\"0.0.0.0:80\"]\nlimit = \"1000/s per global\"\n\
         [[route]]\nname = \"r\"\nmatch = \"/{id}\"\nto = \"a\"\nuse = \"slow\"\n\
         limit = \"5/s per header:x-id, burst 9\"\n\
         [[route]]\nname = \"free\"\nmatch = \"/free/*\"\nto = \"a\"\nlimit = \"off\"\nconcurrency = \"off\"",
    );
    let text = |limit: &weir_config::Limit| format!("{} {}: {limit}", limit.origin, limit.index);
    let limits = config.routes[0].policies.limits.iter().map(text);
    assert_eq!(
        limits.collect::<Vec<_>>(),
        [
            "the top level 0: 100/s per ip",
            "policy `slow` 0: 10/s per route",
            "policy `slow` 1: 1/m per ip",
            "route `r` 0: 5/s per header:x-id, burst 9",
        ]
    );
    let of_listener = config.listeners[0].policies.limits.iter().map(text);
    assert_eq!(
        of_listener.collect::<Vec<_>>(),
        ["listener `0.0.0.0:80` 0: 1000/s per global"]
    );
    let at_once = &config.routes[0].policies.concurrency;
    assert_eq!(at_once.len(), 1);
    assert_eq!(at_once[0].to_string(), "50 per ip");
    let free = &config.routes[1].policies;
    assert!(free.limits.is_empty() && free.concurrency.is_empty());
}
