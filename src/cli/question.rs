//! The arguments of `weir explain FILE METHOD URL` and `weir explain FILE URL`.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use super::explain::{Question, RelayUrl, explain, explain_relay};
use super::{CommandError, CommandResult, help, print};
use crate::control::{Source, load_untested};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let (mut values, mut headers, mut all) = (Vec::new(), Vec::new(), false);
    let (mut client_cert, mut client_ip, mut claims) = (Vec::new(), None, Vec::new());
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("help") => return print(help::EXPLAIN),
            Arg::Short('H') | Arg::Long("header") => headers.push(args.value()?.string()?),
            Arg::Long("client-cert") => client_cert.push(args.value()?.string()?),
            Arg::Long("client-ip") => client_ip = Some(args.value()?.parse()?),
            Arg::Long("claim") => claims.push(args.value()?.string()?),
            Arg::Short('a') | Arg::Long("all") => all = true,
            Arg::Value(value) => values.push(value),
            other => return Err(other.unexpected().into()),
        }
    }
    if let [file, url] = &values[..]
        && let Some(url) = url.to_str()
        && let Some(url) = RelayUrl::parse(url)
    {
        let loaded = load_untested(&Source::File(PathBuf::from(file)))
            .map_err(|error| CommandError::Config(error.to_string()))?;
        let explained = explain_relay((&loaded.plan, &loaded.endpoints), &url, client_ip);
        return print(&explained.map_err(CommandError::Usage)?);
    }
    let values: Result<[_; 3], _> = values.try_into();
    let [file, method, url] = values.map_err(|_| {
        CommandError::Usage(
            "`explain` needs a file, a method and a URL: weir explain edge.toml GET http://host/; for listeners without \
             HTTP a URL alone: weir explain edge.toml tls://db.example.com:443"
                .to_owned(),
        )
    })?;
    let question = Question {
        method: method.string()?,
        url: url.string()?,
        headers,
        client_cert,
        client_ip,
        claims,
        all,
    };
    let loaded = load_untested(&Source::File(PathBuf::from(file)))
        .map_err(|error| CommandError::Config(error.to_string()))?;
    print(&explain((&loaded.plan, &loaded.endpoints), &question).map_err(CommandError::Usage)?)
}
