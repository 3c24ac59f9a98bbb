//! What `weir --help` and `weir COMMAND --help` print.

/// Every command with its help, in the order of the overview.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    ("demo", DEMO),
    ("proxy", PROXY),
    ("run", RUN),
    ("check", CHECK),
    ("explain", EXPLAIN),
    ("schema", SCHEMA),
    ("reference", REFERENCE),
    ("man", MAN),
];

/// The overview.
pub(super) const MAIN: &str = "\
Weir, an edge proxy for Linux: load balancer and API gateway in one binary.

Usage: weir COMMAND [ARGUMENTS]

Try it:
  demo [LISTEN]                   a proxy with two built-in endpoints, and things to try
  proxy LISTEN ENDPOINT...        proxy to these endpoints, without any file

Run it:
  run FILE                        serve what the file says until told to stop
  check FILE                      say everything that is wrong with a file, and run its tests
  explain FILE METHOD URL         show what becomes of a request, and why

Look it up:
  schema                          the JSON schema of the file, for editors
  reference                       every key of the file with its default, as Markdown
  man                             the manual page, for `man -l -` and for packages
  help [COMMAND], --help          this, or more about a command
  --version                       the version

A file of ten lines:
  [listen.\"0.0.0.0:8080\"]

  [upstream.api]
  servers = [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]

  [[route]]
  match = \"/*\"
  to = \"api\"

Signals:
  SIGTERM, SIGINT  stop accepting, finish what is under way, end; a second one ends at once. With
                   `drain_delay`, serve on for that long first, while health says 503
  SIGHUP           read the file again and reopen logs; a bad file changes nothing and says why
  SIGUSR1          reopen logs

CommandError codes:
  0  success, and the end after a signal
  1  could not start, or broke: an address in use, no io_uring, a full disk
  2  wrong usage of this command
  3  the configuration cannot be used, or one of its tests fails
";

/// `weir demo`.
pub(super) const DEMO: &str = "\
Usage: weir demo [LISTEN] [--cores CORES]

Proxies LISTEN (127.0.0.1:8080 unless given) to two small endpoints inside this process, and prints
commands to try. It speaks TLS on 127.0.0.1:8443 too, with a certificate that goes away with it, and
has metrics on 127.0.0.1:9901, or on free ports when these are taken. The access log
goes to standard output. Ctrl-C ends it.

  --cores CORES   auto, a number such as 2, or processors such as 0,2-3 (quoted as \"0\" for one)
";

/// `weir proxy`.
pub(super) const PROXY: &str = "\
Usage: weir proxy LISTEN ENDPOINT... [OPTIONS]

Proxies every request that LISTEN gets to the endpoints in turn, with all defaults.

  LISTEN               address and port (0.0.0.0:8080, [::]:8080), or unix:/path
  ENDPOINT             host:port, http://host:port, https://host:port, h2c://host:port, or unix:/path
  --cores CORES        auto (the default), a number such as 2, or processors such as 2-7,10
  --admin ADDRESS      serve metrics and health there: 127.0.0.1:9901, or unix:/path
  --access-log TO      off (the default), stdout, or an absolute path

Example: weir proxy 0.0.0.0:8080 10.0.0.11:8080 10.0.0.12:8080
";

/// `weir run`.
pub(super) const RUN: &str = "\
Usage: weir run FILE

Serves what FILE says, after checking it like `weir check`. Says on standard error what it listens
on, how many cores it has, what drives their io_uring and what the kernel grants. SIGTERM drains,
SIGHUP reloads, SIGUSR1 reopens logs; see `weir help`.

Started as root with `user`, it becomes that user once its sockets are bound. Listening sockets that
it is started with (LISTEN_FDS) are for the listeners of their addresses; others are closed.

Under systemd (Type=notify-reload, WatchdogSec=) it says when it is ready, how each reload went, and
when it ends; the watchdog hears from it while every core answers.
";

/// `weir check`.
pub(super) const CHECK: &str = "\
Usage: weir check FILE [--no-resolve] [--elsewhere] [--json]

Checks FILE like `run` and a reload do: says everything that is wrong at once, resolves host names,
runs the [[test]] blocks, and asks the machine for what a start needs, as this user: addresses and
ports, folders of sockets and logs, processors, io_uring. Root also tests, as the file's `user`,
whether that can read keys and open logs. Prints `FILE: ok` with a summary when all is well, and how
many connections and how much memory this machine allows.

  --no-resolve   leave host names of endpoints alone: for a machine that cannot resolve them, a build
                 server say. `run` and a reload always resolve them; one that is not found is a warning,
                 and its endpoint comes in when it is
  --elsewhere    FILE is for another machine: ask this one for nothing, host names and users included,
                 and leave out certificates and keys that are not here
  --json         print the findings as a JSON array, for editors and scripts
";

/// `weir explain`.
pub(super) const EXPLAIN: &str = "\
Usage: weir explain FILE METHOD URL [-H 'name: value']... [--client-cert TEXT]... [--all]

Takes a request through the same code that serves, without sending anything: the listener, every
route considered with the first predicate that fails, the route chosen, its upstream and endpoints,
the path after rewriting, the time limits. Words are those of the access log.

  -H, --header 'name: value'   a field of the request; may be repeated
      --client-cert TEXT       the client shows a certificate with this subject (CN=a,O=Example) or
                               name (DNS:a.example.com); may be repeated
  -a, --all                    list every route, however far from matching

Example: weir explain edge.toml GET http://api.example.com/v1/users -H 'x-beta: 1'
";

/// `weir schema`.
pub(super) const SCHEMA: &str = "\
Usage: weir schema

Prints the JSON schema (draft 2020-12) of the configuration file, for editors that complete and
check TOML. Example: weir schema > weir.schema.json
";

/// `weir reference`.
pub(super) const REFERENCE: &str = "\
Usage: weir reference

Prints every key of the configuration file as Markdown: type, default, and where the default comes
from.
";

/// `weir man`.
pub(super) const MAN: &str = "\
Usage: weir man

Prints the manual page as roff. Example: weir man | man -l -
";
