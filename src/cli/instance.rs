//! The running Weir that a command speaks to, by its admin listener.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use weir_config::Address;

use super::{CommandError, NextArgument};
use crate::control::read_token;

/// The file of the package, for commands that name no instance.
const PACKAGED_FILE: &str = "/etc/weir/weir.toml";

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer may take. A reload may resolve names for long.
const ANSWER_PATIENCE: Duration = Duration::from_secs(150);

/// Bytes of an answer. A plan with 20,000 routes has some 5 MB.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The options that say which instance a command means, and how it prints.
#[derive(Default)]
pub(super) struct InstanceOptions {
    pub(super) admin: Option<String>,
    pub(super) file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) json: bool,
}

/// A running Weir.
pub(super) struct Instance {
    address: Address,
    token: Option<String>,
}

/// What the admin listener answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl InstanceOptions {
    /// Takes an option that all commands about instances have. Returns whether it was one.
    pub(super) fn take(
        &mut self,
        name: &str,
        args: &mut lexopt::Parser,
    ) -> Result<bool, CommandError> {
        use lexopt::ValueExt as _;
        match name {
            "admin" => self.admin = Some(args.value()?.string()?),
            "file" => self.file = Some(args.value()?.into()),
            "token-file" => self.token_file = Some(args.value()?.into()),
            "json" => self.json = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Finds the instance: by `--admin`, else by the file's `admin`, else by the variable `WEIR_ADMIN`, else by the file
    /// of the package.
    pub(super) fn find(&self) -> Result<Instance, CommandError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let packaged = Path::new(PACKAGED_FILE);
        let variable_admin =
            variable("WEIR_ADMIN").map(|value| value.to_string_lossy().into_owned());
        let admin = self.admin.clone();
        let admin = admin.or_else(|| variable_admin.filter(|_| self.file.is_none()));
        let file = match (&self.file, &admin) {
            (Some(file), _) => Some(file.as_path()),
            (None, None) => packaged.exists().then_some(packaged),
            (None, Some(_)) => None,
        };
        let settings = file.map(settings_of).transpose()?;
        let token_file = self.token_file.clone();
        let of_file = settings
            .as_ref()
            .and_then(|settings| settings.token_file.as_ref());
        let token_file = token_file
            .or_else(|| of_file.map(|file| file.path.clone()))
            .or_else(|| variable("WEIR_ADMIN_TOKEN_FILE").map(PathBuf::from));
        let address = match (admin, settings) {
            (Some(text), _) => text.parse().map_err(|error| {
                CommandError::Usage(format!(
                    "`{text}` is not the address of an admin listener: {error}"
                ))
            })?,
            (None, Some(settings)) => settings.address,
            (None, None) => {
                return Err(CommandError::Usage(
                    "which Weir? Give --admin ADDRESS or --file FILE, or set WEIR_ADMIN".to_owned(),
                ));
            }
        };
        // The mode of a Unix socket decides, so nothing reads a token there.
        let token_file = token_file.filter(|_| matches!(address, Address::Tcp(_)));
        let token = token_file.map(|file| read_token(&file)).transpose();
        Ok(Instance {
            address,
            token: token.map_err(CommandError::Failed)?,
        })
    }
}

/// The admin listener of a file.
fn settings_of(file: &Path) -> Result<weir_config::Admin, CommandError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| CommandError::Failed(format!("cannot read {name}: {error}")))?;
    let admin = match weir_config::parse(&name, &text) {
        Ok((config, _)) => config.admin,
        // The file may be half edited while its Weir still runs.
        Err(errors) => match weir_config::parse_admin(&name, &text) {
            None => return Err(CommandError::Config(weir_config::to_text(&errors))),
            admin => admin,
        },
    };
    admin.ok_or_else(|| {
        let what = format!(
            "{name} has no `admin`, so its Weir cannot be reached; add one, or give --admin"
        );
        CommandError::Failed(what)
    })
}

impl Instance {
    /// Sends a request with a body of JSON, if there is one.
    ///
    /// # Errors
    /// The instance cannot be reached.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, CommandError> {
        self.exchange(method, path, body).map_err(|error| {
            CommandError::Failed(format!("cannot reach Weir at {}: {error}", self.address))
        })
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// The instance cannot be reached or refuses.
    pub(super) fn get(&self, path: &str) -> Result<Value, CommandError> {
        self.send("GET", path, None)?.json()
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let (host, answer) = match &self.address {
            Address::Tcp(address) => {
                let address = reachable(*address);
                let request = self.request(method, path, &address.to_string(), body);
                let stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
                stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
                stream.set_write_timeout(Some(CONNECT_PATIENCE))?;
                (address.to_string(), send_and_read(stream, &request)?)
            }
            Address::Unix(path_of_socket) => {
                let request = self.request(method, path, "localhost", body);
                let stream = UnixStream::connect(path_of_socket)?;
                stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
                stream.set_write_timeout(Some(CONNECT_PATIENCE))?;
                ("the socket".to_owned(), send_and_read(stream, &request)?)
            }
        };
        Answer::parse(&answer)
            .ok_or_else(|| io::Error::other(format!("{host} gave no complete answer of HTTP")))
    }

    fn request(&self, method: &str, path: &str, host: &str, body: Option<&Value>) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        let body = body.map(Value::to_string);
        if let Some(body) = &body {
            let length = body.len();
            head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        head += "\r\n";
        head += body.as_deref().unwrap_or_default();
        head.into_bytes()
    }
}

/// Where to connect to for a listener on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn send_and_read(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

impl Answer {
    /// Reads an answer that ends with its connection. `None` if it is incomplete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let (head, body) = (bytes.get(..end)?, bytes.get(end + 4..)?);
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        let body = body.get(..length.unwrap_or(body.len()))?;
        Some(Self {
            status: status.parse().ok()?,
            body: body.to_vec(),
        })
    }

    /// Whether the request was carried out.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a success; `null` without one.
    ///
    /// # Errors
    /// The instance refused; the text is its message.
    pub(super) fn json(&self) -> Result<Value, CommandError> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        let parsed = serde_json::from_slice(&self.body);
        parsed.map_err(|error| CommandError::Failed(format!("the answer is no JSON: {error}")))
    }

    /// Why the instance refused.
    pub(super) fn refusal(&self) -> CommandError {
        let parsed: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = parsed.pointer("/error/message").and_then(Value::as_str);
        let status = self.status;
        CommandError::Failed(match (message, status) {
            (Some(message), 401) => format!("{message} (--token-file, or WEIR_ADMIN_TOKEN_FILE)"),
            (Some(message), _) => message.to_owned(),
            (None, 404) => "this Weir has no admin API; is it an older version?".to_owned(),
            (None, _) => format!("the admin listener answers {status}"),
        })
    }
}

/// Reads the arguments of a command about an instance. `other` takes what is not an option of all these commands.
pub(super) fn read_arguments(
    args: &mut lexopt::Parser,
    command: &str,
    mut other: impl FnMut(NextArgument, &mut lexopt::Parser) -> Result<bool, CommandError>,
) -> Result<Option<InstanceOptions>, CommandError> {
    let mut options = InstanceOptions::default();
    loop {
        match super::next(args)? {
            NextArgument::End => return Ok(Some(options)),
            NextArgument::Help => return Ok(None),
            NextArgument::Long(name) => {
                if options.take(&name, args)? || other(NextArgument::Long(name.clone()), args)? {
                    continue;
                }
                return Err(CommandError::Usage(format!(
                    "`{command}` has no option --{name}"
                )));
            }
            NextArgument::Value(value) => {
                if !other(NextArgument::Value(value.clone()), args)? {
                    return Err(super::unexpected(&value));
                }
            }
        }
    }
}

/// The text of a member of a JSON object; empty without it.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The number of a member of a JSON object; 0 without it.
pub(super) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// The items of a JSON list.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// JSON over several lines, for people and programs.
pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Rows as a table whose columns are as wide as their longest cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_complete() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
        let answer = Answer::parse(whole).expect("it is complete");
        assert_eq!((answer.status, &*answer.body), (201, &b"{}"[..]));
        for cut in 0..whole.len() {
            assert!(Answer::parse(&whole[..cut]).is_none(), "{cut}");
        }
        let empty = Answer::parse(b"HTTP/1.1 204 No Content\r\n\r\n").expect("complete");
        assert!(empty.is_success() && empty.json().is_ok_and(|value| value.is_null()));
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [
            vec!["A".to_owned(), "B".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&rows), "A     B\nlong\n");
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        let reach = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reach("0.0.0.0:9901"), "127.0.0.1:9901");
        assert_eq!(reach("[::]:9901"), "[::1]:9901");
        assert_eq!(reach("10.0.0.1:9901"), "10.0.0.1:9901");
    }
}
