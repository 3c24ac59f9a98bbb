//! What `weir --help` and `weir COMMAND --help` print.

/// Every command with its help, in the order of the overview.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    ("demo", DEMO),
    ("proxy", PROXY),
    ("run", RUN),
    ("check", CHECK),
    ("explain", EXPLAIN),
    ("status", STATUS),
    ("upstream", UPSTREAM),
    ("reload", RELOAD),
    ("upgrade", UPGRADE),
    ("diff", DIFF),
    ("schema", SCHEMA),
    ("reference", REFERENCE),
    ("man", MAN),
];

/// The overview.
pub(super) const MAIN: &str = "\
Weir is a load balancer and an API gateway in one Linux binary.

Usage: weir COMMAND [ARGUMENTS]

Try it:
  demo [LISTEN]                   run a proxy with two built-in endpoints, and print commands to try
  proxy LISTEN ENDPOINT...        proxy to these endpoints without a configuration file

Run it:
  run FILE                        serve as FILE says until a signal stops it
  check FILE                      report every mistake in FILE, and run its tests
  explain FILE METHOD URL         show what Weir would do with a request, and why

Operate a running one:
  status [FILE]                   show what runs, and whether it is ready
  upstream VERB ...               list, add, drain and remove endpoints
  reload [FILE]                   read the file again, and report its mistakes
  upgrade [FILE]                  replace the process by the program at its path, without an end of service
  diff [FILE]                     show what differs from the file

Look it up:
  schema                          print the JSON schema of the file, for editors
  reference                       print every key of the file with its default, as Markdown
  man                             print the manual page, for `man -l -` and for packages
  help [COMMAND], --help          print this overview, or the help of a command
  --version                       print the version

A file of ten lines:
  [listen.\"0.0.0.0:8080\"]

  [upstream.api]
  servers = [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]

  [[route]]
  match = \"/*\"
  to = \"api\"

Signals:
  SIGTERM, SIGINT  stop accepting, finish running requests, exit; a second signal exits at once. With
                   `drain_delay`, Weir first keeps serving for that long while its health check says 503
  SIGHUP           reload the file and reopen the logs; if the file has a mistake, Weir logs it and
                   keeps the old configuration
  SIGUSR1          reopen the logs
  SIGUSR2          replace the process by the program at its path; see `weir upgrade --help`

Exit codes:
  0  success, or stopped by a signal
  1  Weir could not start or failed while running: an address in use, no io_uring, a full disk
  2  wrong arguments
  3  the configuration file has a mistake, or one of its tests fails
";

/// `weir demo`.
pub(super) const DEMO: &str = "\
Usage: weir demo [LISTEN] [--cores CORES]

Proxies LISTEN (default 127.0.0.1:8080) to two small endpoints inside this process, and prints
commands to try. It also serves TLS on 127.0.0.1:8443, with a certificate that it deletes when it
exits, and metrics on 127.0.0.1:9901. If one of these two ports is taken, it uses a free one. The
access log goes to standard output. Ctrl-C stops it.

  --cores CORES   auto, a number such as 2, or processors such as 2-7,10 (0-0 for the first alone)
";

/// `weir proxy`.
pub(super) const PROXY: &str = "\
Usage: weir proxy LISTEN ENDPOINT... [OPTIONS]

Spreads all requests from LISTEN over the endpoints. Every setting has its default.

  LISTEN               address and port (0.0.0.0:8080, [::]:8080), or unix:/path
  ENDPOINT             host:port, http://host:port, https://host:port, h2c://host:port, or unix:/path
  --cores CORES        auto (the default), a number such as 2, or processors such as 2-7,10
  --admin ADDRESS      serve metrics and health on 127.0.0.1:9901, or unix:/path
  --access-log TO      off (the default), stdout, or an absolute path

Example: weir proxy 0.0.0.0:8080 10.0.0.11:8080 10.0.0.12:8080
";

/// `weir run`.
pub(super) const RUN: &str = "\
Usage: weir run FILE

Checks FILE as `weir check` does, then serves. At the start, Weir prints to standard error where it
listens, how many cores it uses, which io_uring driver it uses, and what the kernel allows. SIGTERM
drains, SIGHUP reloads, SIGUSR1 reopens the logs; see `weir help`.

If it starts as root and FILE has `user`, Weir binds its sockets first and then becomes that user.
Weir takes over listening sockets that it inherits (LISTEN_FDS) if a listener has their address, and
closes the others.

Under systemd (Type=notify-reload, WatchdogSec=), Weir reports when it is ready, how each reload
went, and when it stops. It feeds the watchdog as long as every core responds.
";

/// `weir check`.
pub(super) const CHECK: &str = "\
Usage: weir check FILE [--no-resolve] [--elsewhere] [--json]

Checks FILE as `weir run` and a reload do. It reports every mistake at once, resolves host names and
runs the [[test]] blocks. It also tests, as the current user, whether this machine has what a start
needs: addresses and ports, folders of sockets and logs, processors, io_uring. Root also tests whether
the `user` of FILE can read keys and open logs. If all is well, it prints how many connections and
how much memory this machine allows, and `FILE: ok` with a summary.

  --no-resolve   do not resolve the host names of endpoints: for a build server that cannot. `run` and
                 a reload always resolve them; a name that is not found is a warning, and its endpoint
                 joins when the name is found
  --elsewhere    FILE is for another machine: do not test this one, do not resolve host names or look
                 up users, and skip files that FILE names and that are not here; it names them
  --json         print the findings as a JSON array, for editors and scripts
";

/// `weir explain`.
pub(super) const EXPLAIN: &str = "\
Usage: weir explain FILE METHOD URL [OPTION]...

Shows what Weir would do with a request, without sending anything. It runs the code that serves
requests, and prints the listener, each route with the first predicate that fails, the route that
takes the request, its upstream and endpoints, the rewritten path, and the time limits.

  -H, --header 'name: value'   add a field to the request; may be repeated
      --client-cert TEXT       the client shows a certificate with this subject (CN=a,O=Example) or
                               name (DNS:a.example.com); may be repeated
      --client-ip IP           the client has this address, unless fields of a trusted proxy name
                               another
      --claim NAME=VALUE       the client has a valid token with this claim; may be repeated, also for
                               one name, which makes a list
  -a, --all                    list every route, including those of other hosts and paths

For a listener without HTTP, write only a URL: tcp://HOST:PORT, udp://HOST:PORT, or tls://NAME:PORT
for a client that asks for this name.

Example: weir explain edge.toml GET http://api.example.com/v1/users -H 'x-beta: 1'
         weir explain edge.toml tls://db.example.com:443
";

/// `weir status`.
pub(super) const STATUS: &str = "\
Usage: weir status [FILE] [OPTION]...

Shows what a running Weir runs: its plan, its reloads, and what was changed at run time. The exit code
is 0 if every core runs the current plan and no drain has begun, else 1.

  --admin ADDRESS     its admin listener: 127.0.0.1:9901, or unix:/run/weir/admin.sock
  --file FILE         the same as FILE: find the listener and the token by this file
  --token-file FILE   the token, if FILE does not name one
  --json              print JSON

Without --admin and FILE, Weir takes the address in WEIR_ADMIN, else that of /etc/weir/weir.toml; and
the token in the file that WEIR_ADMIN_TOKEN_FILE names.
";

/// `weir upstream`.
pub(super) const UPSTREAM: &str = "\
Usage: weir upstream VERB [ARGUMENT]... [OPTION]...

Lists and changes the endpoints of a running Weir. A change takes effect when the command returns.

  list [UPSTREAM]                      all endpoints, with state and load
  add UPSTREAM ADDRESS                 add an endpoint: 10.0.0.7:8080, https://10.0.0.7:8443, unix:/path
  drain UPSTREAM ADDRESS               send no new requests; those under way finish
  maintenance UPSTREAM ADDRESS         send nothing more, not even to clients that are bound to it
  ready UPSTREAM ADDRESS               send requests again
  weight UPSTREAM ADDRESS WEIGHT       change its share, 0 to 65535; 0 drains
  remove UPSTREAM ADDRESS              remove it; requests under way finish

  --weight WEIGHT     the weight of an added endpoint
  --wait SECONDS      with drain and maintenance: wait until no request is left; exit code 1 if some are
  --persist           keep the change over reloads and upgrades; a restart forgets it
  --admin, --file, --token-file, --json
                      as `weir status --help` says

Example: weir upstream drain api 10.0.0.12:8080
";

/// `weir reload`.
pub(super) const RELOAD: &str = "\
Usage: weir reload [FILE] [OPTION]...

Makes a running Weir read its file again, as SIGHUP does, and waits until all cores run it. If the file
has a mistake, prints it and changes nothing; the exit code is then 3. FILE only finds the instance: Weir
reads the file that it was started with.

  --admin, --file, --token-file, --json
                      as `weir status --help` says
";

/// `weir upgrade`.
pub(super) const UPGRADE: &str = "\
Usage: weir upgrade [FILE] [OPTION]...

Replaces a running Weir by a new process, as SIGUSR2 does. The new process runs the program that is at the
path of the old one now, with the same arguments, and takes over its listening sockets. When all its cores
serve, the old process finishes its requests and ends. If the new process does not come up within 60 s,
or finds a mistake in its file, prints why, and the old one goes on; the exit code is then 1. FILE only finds
the instance.

  --admin, --file, --token-file, --json
                      as `weir status --help` says
";

/// `weir diff`.
pub(super) const DIFF: &str = "\
Usage: weir diff [FILE] [OPTION]...

Shows what differs between a running Weir and its file: endpoints that were changed at run time, and
lines of the file that were changed since it was loaded. Comments and secrets do not count.

  --admin, --file, --token-file, --json
                      as `weir status --help` says
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

Prints every key of the configuration file as Markdown, with its type, its default, and the source
of the default.
";

/// `weir man`.
pub(super) const MAN: &str = "\
Usage: weir man

Prints the manual page as roff. Example: weir man | man -l -
";
