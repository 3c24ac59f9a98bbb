//! `weir upstream list|add|drain|ready|maintenance|weight|remove`.

use std::thread;
use std::time::{Duration, Instant};

use lexopt::{Parser, ValueExt as _};
use serde_json::{Value, json};

use super::instance::{
    Instance, InstanceOptions, items, number, pretty, read_arguments, table, text,
};
use super::{CommandError, CommandResult, NextArgument, help, print};

/// The first pause between two looks at a draining endpoint; the longest is ten times as long.
const WAIT_STEP: Duration = Duration::from_millis(100);

/// What the command line asks for beside the instance.
#[derive(Default)]
struct Asked {
    values: Vec<String>,
    weight: Option<u32>,
    persist: bool,
    /// How long to wait until a drained endpoint has no request left.
    wait: Option<Duration>,
}

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let mut asked = Asked::default();
    let options = read_arguments(args, "upstream", |argument, args| {
        match argument {
            NextArgument::Value(value) => asked.values.push(value.string()?),
            NextArgument::Long(name) if name == "persist" => asked.persist = true,
            NextArgument::Long(name) if name == "wait" => {
                asked.wait = Some(Duration::from_secs(args.value()?.parse()?));
            }
            NextArgument::Long(name) if name == "weight" => {
                asked.weight = Some(args.value()?.parse()?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(options) = options else {
        return print(help::UPSTREAM);
    };
    let values: Vec<_> = asked.values.iter().map(String::as_str).collect();
    let (verb, names) = values.split_first().ok_or_else(|| {
        CommandError::Usage("`upstream` needs a verb, such as `weir upstream list`".to_owned())
    })?;
    asked.check_options(verb)?;
    match (*verb, names) {
        ("list", [] | [_]) => list(&options, names.first().copied()),
        ("add", [upstream, address]) => {
            let mut body = json!({ "address": address, "persist": asked.persist });
            if let (Some(weight), Some(body)) = (asked.weight, body.as_object_mut()) {
                body.insert("weight".to_owned(), weight.into());
            }
            let path = format!("/api/upstreams/{}/endpoints", encode(upstream));
            let endpoint = options.find()?.send("POST", &path, Some(&body))?.json()?;
            show(&options, &endpoint)
        }
        ("ready" | "drain" | "maintenance", [upstream, address]) => {
            let body = json!({ "state": verb, "persist": asked.persist });
            patch(&options, (upstream, address), &body, asked.wait)
        }
        ("weight", [upstream, address, weight]) => {
            let weight: u32 = weight
                .parse()
                .map_err(|_| CommandError::Usage(format!("`{weight}` is no weight")))?;
            let body = json!({ "weight": weight, "persist": asked.persist });
            patch(&options, (upstream, address), &body, None)
        }
        ("remove", [upstream, address]) => {
            let query = if asked.persist { "?persist=true" } else { "" };
            let path = format!("{}{query}", path_of(upstream, address));
            options.find()?.send("DELETE", &path, None)?.json()?;
            match options.json {
                true => Ok(()),
                false => print(&format!("removed {address} of {upstream}\n")),
            }
        }
        ("list", _) => Err(usage("list [UPSTREAM]")),
        ("add" | "ready" | "drain" | "maintenance" | "remove", _) => {
            Err(usage(&format!("{verb} UPSTREAM ADDRESS")))
        }
        ("weight", _) => Err(usage("weight UPSTREAM ADDRESS WEIGHT")),
        _ => {
            let what = format!("`upstream` has no verb `{verb}`; see `weir upstream --help`");
            Err(CommandError::Usage(what))
        }
    }
}

impl Asked {
    fn check_options(&self, verb: &str) -> CommandResult {
        if self.weight.is_some() && verb != "add" {
            let what = "--weight goes with `add`; `weir upstream weight UPSTREAM ADDRESS WEIGHT` changes one";
            return Err(CommandError::Usage(what.to_owned()));
        }
        if self.wait.is_some() && !matches!(verb, "drain" | "maintenance") {
            let what = "--wait goes with `drain` and `maintenance`";
            return Err(CommandError::Usage(what.to_owned()));
        }
        if self.persist && verb == "list" {
            let what = "--persist goes with a change, not with `list`";
            return Err(CommandError::Usage(what.to_owned()));
        }
        Ok(())
    }
}

fn usage(form: &str) -> CommandError {
    CommandError::Usage(format!("write it as: weir upstream {form}"))
}

fn list(options: &InstanceOptions, name: Option<&str>) -> CommandResult {
    let instance = options.find()?;
    let upstreams = upstreams(&instance, name)?;
    if options.json {
        return print(&pretty(&upstreams));
    }
    let header = [
        "UPSTREAM",
        "ENDPOINT",
        "WEIGHT",
        "STATE",
        "HEALTH",
        "IN FLIGHT",
        "CONNECTIONS",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for upstream in items(&upstreams) {
        let name = text(upstream, "name");
        let endpoints = upstream.get("endpoints").map_or(&[][..], items);
        rows.extend(endpoints.iter().map(|endpoint| row(name, endpoint)));
        for endpoint in upstream.get("unresolved").map_or(&[][..], items) {
            let address = text(endpoint, "address").to_owned();
            let error = format!("not found: {}", text(endpoint, "error"));
            rows.push(vec![
                name.to_owned(),
                address,
                String::new(),
                String::new(),
                error,
            ]);
        }
    }
    print(&table(&rows))
}

/// A list of all upstreams, or of the one with this name.
fn upstreams(instance: &Instance, name: Option<&str>) -> Result<Value, CommandError> {
    match name {
        None => instance.get("/api/upstreams"),
        Some(name) => {
            let one = instance.get(&format!("/api/upstreams/{}", encode(name)))?;
            Ok(Value::Array(vec![one]))
        }
    }
}

/// The word for an endpoint whose checks pass, or that has none.
pub(super) const HEALTHY: &str = "healthy";

/// The health of an endpoint in a few words.
pub(super) fn health_of(endpoint: &Value) -> String {
    let is = |key: &str| endpoint.get(key).and_then(Value::as_bool) == Some(true);
    let failure = endpoint.get("failure").and_then(Value::as_str);
    match (is("healthy"), is("ejected"), failure) {
        (_, true, _) => "ejected".to_owned(),
        (true, false, _) => HEALTHY.to_owned(),
        (false, false, Some(why)) => format!("down: {why}"),
        (false, false, None) => "unchecked".to_owned(),
    }
}

fn row(upstream: &str, endpoint: &Value) -> Vec<String> {
    vec![
        upstream.to_owned(),
        text(endpoint, "address").to_owned(),
        number(endpoint, "weight").to_string(),
        text(endpoint, "state").to_owned(),
        health_of(endpoint),
        number(endpoint, "in_flight").to_string(),
        number(endpoint, "connections").to_string(),
    ]
}

fn patch(
    options: &InstanceOptions,
    (upstream, address): (&str, &str),
    body: &Value,
    wait: Option<Duration>,
) -> CommandResult {
    let (instance, path) = (options.find()?, path_of(upstream, address));
    let mut endpoint = instance.send("PATCH", &path, Some(body))?.json()?;
    if let Some(wait) = wait {
        endpoint = until_idle(&instance, &path, wait)?;
    }
    show(options, &endpoint)?;
    match (wait, number(&endpoint, "in_flight")) {
        (None, _) | (_, 0) => Ok(()),
        (Some(wait), left) => Err(CommandError::Failed(format!(
            "{left} requests have not ended within {} s",
            wait.as_secs()
        ))),
    }
}

/// Waits until an endpoint has no request left, at most for `wait`. Returns it as it is then.
fn until_idle(instance: &Instance, path: &str, wait: Duration) -> Result<Value, CommandError> {
    let deadline = Instant::now() + wait;
    // Cores count for others what they do now only once a tick.
    let mut pause = WAIT_STEP;
    loop {
        thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
        let endpoint = instance.get(path)?;
        if number(&endpoint, "in_flight") == 0 || Instant::now() >= deadline {
            return Ok(endpoint);
        }
        pause = (pause * 2).min(WAIT_STEP * 10);
    }
}

/// Prints an endpoint after a change.
fn show(options: &InstanceOptions, endpoint: &Value) -> CommandResult {
    if options.json {
        return print(&pretty(endpoint));
    }
    print(&format!(
        "{}: {}, weight {}, {} in flight\n",
        text(endpoint, "address"),
        text(endpoint, "state"),
        number(endpoint, "weight"),
        number(endpoint, "in_flight"),
    ))
}

fn path_of(upstream: &str, address: &str) -> String {
    format!(
        "/api/upstreams/{}/endpoints/{}",
        encode(upstream),
        encode(address)
    )
}

/// Percent-encodes a name for a path.
fn encode(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_a_path() {
        let path = path_of("http://a:80", "unix:/run/a b.sock");
        let wanted = "/api/upstreams/http:%2F%2Fa:80/endpoints/unix:%2Frun%2Fa%20b.sock";
        assert_eq!(path, wanted);
    }
}
