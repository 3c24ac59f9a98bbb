//! Every limit of the proxy that is not a setting, and every default that the configuration starts from: the unit
//! is in the name, the source in the comment. Limits of parsing stand in `weir_proto_h1::limits`.

/// Sizes of pooled blocks, smallest first. The first holds a usual head; the last is what bulk bodies move in, so
/// that a megabyte takes sixteen receives. 16 KiB is HAProxy's buffer and the largest HTTP/2 frame by default.
pub const BLOCK_BYTES: [usize; 3] = [4 * 1024, 16 * 1024 + 64, 64 * 1024];

/// Room in front of each block's bytes: a chunk-size line (18) or an HTTP/2 frame header (9) fits with ease.
pub const HEADROOM_BYTES: usize = 64;

/// Free blocks that a pool keeps per size, in bytes; more are given back to the allocator.
pub const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Receives per core that may hold a block while nothing has come yet. Beyond it a socket half waits for readiness
/// and takes a block when there is something to put in it, so that idle connections cost no buffer.
pub const ARMED_RECEIVES_MAX: usize = 256;

/// Entries of a core's submission queue under monoio. A full one forces an early system call; monoio cannot recover
/// from one that stays full.
pub const RING_ENTRIES: u32 = 4096;

/// Entries of a core's submission queue under our own driver. What finds no room waits in memory; few kilobytes that
/// are used again and again stay in the cache.
pub const RING_SUBMISSIONS: u32 = 256;

/// Entries of its completion queue: what one turn takes in at most. The kernel keeps what finds no room.
pub const RING_COMPLETIONS: u32 = 4096;

/// Tasks that run in one turn of the loop besides those that were to run when it began.
pub const LOOP_WAKES_MAX: usize = 64;

/// Bytes that one connection receives in a turn before others have theirs: as many as pass at a time.
pub const LOOP_BYTES_MAX: u32 = SPLICE_BYTES_MAX as u32;

/// Steps that one poll of a connection's task may take before the others have their turn: a step is a piece of a body
/// or a frame, of which the smallest takes less than a microsecond.
pub const SHARE_STEPS: u32 = 256;

/// Bytes of a head over HTTP/2, or of trailers, that count for a step beyond the first: a hundred fields take as long
/// as many pieces of a body.
pub const H2_HEAD_STEP_BYTES: usize = 64;

/// Steps that an exchange over HTTP/1.1 counts for: eight of them are a share, so that 250 clients that pipeline hold
/// up everybody else for 2,000 local answers.
pub const EXCHANGE_STEPS: u32 = 32;

/// Requests of one connection of HTTP/2 that are given to tasks before others have their turn. Answers that are made
/// together leave together, in one send.
pub const H2_REQUESTS_AT_ONCE_MAX: usize = 16;

/// Letters that a core takes out of its mailbox before it looks at everything else.
pub const MAILBOX_MESSAGES_AT_ONCE_MAX: usize = 64;

/// Connections that a core accepts at a time from one listener, so that a storm does not keep others waiting.
pub const ACCEPTS_AT_ONCE_MAX: u32 = 16;

/// Accepts that each core keeps waiting for each listener on monoio, where one accept takes one turn of the loop. Weir's
/// own driver needs one accept: it drains the queue.
pub const ACCEPTS_POSTED: usize = 8;

/// Chunks that one vectored send takes.
pub const SEND_CHUNKS_MAX: usize = 16;

/// Data below this is copied into the block that is being written anyway: one more entry in a vectored send costs
/// more than the copy.
pub const COPY_BELOW_BYTES: usize = 2_048;

/// A piece of data keeps the block in which it was received from others if it is at least such a share of it (a
/// quarter); smaller ones are copied. What waits costs no more than four times what it is then.
pub const PIECE_SHARE_MIN: usize = 4;

/// Bytes queued in one direction of an exchange before its source is no longer read: with the block in flight, what
/// a client that does not read costs.
pub const QUEUED_BYTES_HIGH: usize = 128 * 1024;

/// Bytes of a request's body that are kept for another attempt (Pingora keeps 64 KiB).
pub const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// Connections that may fail for one exchange, each at another endpoint where there is one (HAProxy tries three more
/// times by `retries 3`, nginx every endpoint): with `connect` at 2 s, a client waits for six seconds at most.
pub const CONNECTS_MAX: u32 = 3;

/// How long a core keeps a connection to an endpoint from older requests of other cores while all places at it are
/// taken: what the change costs, a close and a connect, is paid twenty times a second for each place at most.
pub const SLOT_KEPT_MS: u64 = 50;

/// A body of this length or more goes from socket to socket without being copied to us and back. Measured, 16 KiB
/// answers cost a seventh less CPU this way; below, the three system calls cost about what the copies do.
pub const SPLICE_BYTES_MIN: u64 = 16 * 1024;

/// Bytes that pass at a time, and what is asked of the system as a pipe's size: a quarter of what anybody may ask for
/// (Linux `pipe-max-size`). Half of it and four times as much cost the same CPU.
pub const SPLICE_BYTES_MAX: usize = 256 * 1024;

/// Pipes that a core has at most. One is held while bytes wait in it for a slow reader, and is two descriptors; bodies
/// beyond are copied.
pub const PIPES_MAX: usize = 256;

/// Empty pipes that a core keeps for the next bodies.
pub const PIPES_KEPT_MAX: usize = 16;

/// How long a connection keeps what a conversation needs when no further request comes.
pub const IDLE_AFTER_MS: u64 = 100;

/// Conversations of a core beyond which none waits for its next request: memory is scarcer then than the allocation
/// that waiting saves.
pub const WAITING_CONNECTIONS_MAX: usize = 256;

/// How long a closing connection is read for, so that the last answer is not lost by a reset (nginx
/// `lingering_timeout` 5 s).
pub const LINGER_MS: u64 = 2_000;

/// How much is read and thrown away from a closing connection.
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How much of a body is read after its answer was sent, to keep the connection (Go's server reads 256 KiB).
pub const UNREAD_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a request id that a trusted proxy may give: UUIDs have 36, AWS trace ids up to 74 (Heroku takes 200).
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// How finely deadlines are looked at.
pub const TIMER_TICK_MS: u64 = 20;

/// How often idle upstream connections are looked through.
pub const HOUSEKEEPING_MS: u64 = 1_000;

/// Letters that wait in a core's mailbox at most.
pub const MAILBOX_MESSAGES_MAX: usize = 1_024;

/// How long handshakes that have begun may take to come to their end before a listener closes: longer than most round
/// trips. Nobody waits for it but a shutdown, and a reload that takes a listener away.
pub const LISTENER_SETTLE_MS: u64 = 200;

/// Connections that are accepted from the queue of a listener that closes: as many as the longest queue holds.
pub const CLOSING_LISTENER_ACCEPTS_MAX: u32 = 65_535;

/// How long that may take.
pub const CLOSING_LISTENER_MS: u64 = 1_000;

/// How long a connection may take to send its first bytes that was made when Weir was about to end: they are on their
/// way, mostly. Long enough for a segment that is lost to be sent again (1 s, RFC 6298).
pub const DRAIN_FIRST_BYTES_MS: u64 = 2_000;

/// Open files that are kept for control: its loop, signals, logs, the admin listener with its connections, files that a
/// reload reads, and lookups of names.
pub const CONTROL_FILES: u64 = 96;

/// Open files that are kept for each core besides sockets and pipes: its ring, its doorbell, and some to spare.
pub const CORE_FILES: u64 = 8;

/// Memory that a client's connection counts for where there are as many as the machine allows: what one takes that got
/// stuck.
pub const CONNECTION_BYTES: u64 = 64 * 1024;

/// Connections that are served however little the machine grants.
pub const CONNECTIONS_MIN: u64 = 16;

/// Bytes that the kernel takes to be sent on a connection and has not sent yet. Without a bound that is up to 4 MiB for
/// each client that does not read (Linux `tcp_wmem`). 128 KiB are what several large sites use.
pub const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Memory that the kernel is taken to hold for a connection whose peer does not read: what is not sent, and about as
/// much that has come on the other side and waits.
pub const KERNEL_QUEUED_BYTES: usize = 2 * UNSENT_BYTES_MAX as usize;

/// Memory that a client's connection takes whatever is on it: socket, file and task.
pub const IDLE_CONNECTION_BYTES: usize = 8 * 1024;

/// Memory that a session of TLS takes at rest.
pub const IDLE_TLS_BYTES: usize = 24 * 1024;

/// Memory that a conversation takes: the state of an exchange, and reused vectors.
pub const ACTIVE_CONNECTION_BYTES: usize = 16 * 1024;

/// Share of a core's memory that it keeps in free blocks of each size at most, one of so many.
pub const POOL_SHARE: usize = 16;

/// The longest answer of Weir's own that is given while there is no memory left.
pub const SMALL_ANSWER_BYTES: usize = 4 * 1024;

/// Memory of a core unless the file says how much: what is more than this is left to others on the machine.
pub const MEMORY_PER_CORE_MAX: usize = 1024 * 1024 * 1024;

/// Unused connections to endpoints that a core closes when it finds no descriptor for another one.
pub const IDLE_CLOSED_AT_ONCE: usize = 8;

/// How long an accept waits after an error that is likely to last.
pub const ACCEPT_RETRY_MS: u64 = 50;

/// How long a connect to a Unix socket with a full queue waits before it is tried again. The kernel does not tell when
/// there is room.
pub const CONNECT_RETRY_MS: u64 = 1;

/// A core hands new connections on when it has more than this share of the mean (Envoy's balancers move each; only
/// the excess is worth the trip).
pub const SPREAD_PERCENT_MAX: u64 = 125;

/// With fewer connections than this a core hands none on: small numbers are never even.
pub const SPREAD_MIN: u64 = 8;

/// Bytes framed for a connection of HTTP/2 that its peer has not taken, before no more is framed and nothing more is
/// received: a peer that reads nothing costs this much and what its streams hold.
pub const H2_QUEUED_BYTES_HIGH: usize = 128 * 1024;

/// Bytes that wait on one stream of HTTP/2 before its source is no longer read, while frames go out.
pub const H2_STREAM_QUEUED_BYTES_HIGH: usize = 32 * 1024;

/// The same while a window is shut or the peer does not read, as may be so on all of a connection's streams at once: a
/// frame's worth, for when that ends.
pub const H2_BLOCKED_QUEUED_BYTES_HIGH: usize = 16 * 1024;

/// A window that lets through less than this, and less than there is, is waited for: a frame of 64 bytes is an eighth
/// framing, and so small a piece counts as none in `weir_proto_h2` either (`TINY_DATA_BYTES`).
pub const H2_TINY_WINDOW_BYTES: usize = 64;

/// For how long: a peer whose windows are that small gets its data as slowly (TCP's answer to silly windows, RFC 1122
/// section 4.2.3.4, has the sender wait 100 ms or more).
pub const H2_TINY_WINDOW_MS: u64 = 20;

/// Of so many pieces that are framed on a connection of HTTP/2, one is of another stream than the most urgent: each has
/// that turn some time, so that all come to their end.
pub const H2_FAIR_TURN: usize = 16;

/// Receives that one turn of a connection of HTTP/2 takes in before it sends.
pub const H2_RECEIVES_MAX: usize = 16;

/// Tasks that a connection of HTTP/2 keeps for its next requests: as many as it may have at a time, unless the file
/// allows more.
pub const H2_IDLE_WORKERS_MAX: usize = 100;

/// How long requests that are on their way are still taken after a client was told that its connection will end: a
/// round trip around the world, and time to spare.
pub const H2_DRAIN_MS: u64 = 1_000;

/// How long an endpoint may take from the connection to its SETTINGS, for which nothing has to be worked out: what the
/// head of a request may take.
pub const H2_SETTINGS_TIMEOUT_MS: u64 = 10_000;

/// How long an endpoint may take to end the stream of an answer that is whole by its length, and that its client has,
/// before it is told that nobody waits.
pub const H2_END_MS: u64 = 2_000;

/// Silence of an endpoint that owes answers, before it is asked for a sign of life (gRPC libraries ask after 10 s or
/// more).
pub const H2_PING_AFTER_MS: u64 = 10_000;

/// PINGs that an endpoint gets so early before it has sent another HEADERS or DATA frame. A server of gRPC forgives the
/// first PING after a message of its own and two that come too early (grpc-go `maxPingStrikes`, gRPC core
/// `max_ping_strikes`); the one to spare is for a message that crosses a PING on the way.
pub const H2_PINGS_EARLY_MAX: u8 = 2;

/// The time between two PINGs beyond those. A server of gRPC counts a PING within 5 minutes of the one before as too early
/// (grpc-go `EnforcementPolicy.MinTime`, gRPC core `min_recv_ping_interval_without_data_ms`); the ten seconds more are
/// for a PING that the network has held up.
pub const H2_PING_INTERVAL_MS: u64 = 310_000;

/// Interim answers that wait on a stream of HTTP/2 for their request to take them.
pub const H2_INTERIM_WAITING_MAX: usize = 16;

/// How long a connection that belongs to one client is kept for its next request although others wait for a connection:
/// the few requests of a handshake follow each other at once.
pub const BOUND_KEPT_MS: u64 = 1_000;

/// Silence on a connection to an endpoint before the system probes whether the other machine still answers.
pub const TCP_PROBE_AFTER_MS: u64 = 30_000;

/// The time between two such probes.
pub const TCP_PROBE_INTERVAL_MS: u64 = 10_000;

/// How long an endpoint's machine may answer no probe, and acknowledge nothing of what was sent, before the system gives
/// the connection up (`TCP_USER_TIMEOUT`): the first probe and three more, as Cloudflare sets the two in step; gRPC
/// libraries give a PING and unacknowledged bytes 20 s (proposal A18).
pub const TCP_DEAD_AFTER_MS: u64 = 60_000;

/// How long an endpoint may take to answer a PING (gRPC libraries wait 20 s, Go's client 15 s; its transport's other
/// deadlines hold as well).
pub const H2_PING_TIMEOUT_MS: u64 = 15_000;

/// How long an endpoint may take nothing of what is to be sent to it.
pub const H2_SEND_STALL_MS: u64 = 30_000;

/// The most plaintext in one TLS record (RFC 8446 section 5.1).
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// What a record adds at most: header, explicit nonce, inner type, tag; or all of an alert.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 48;

/// Encrypted bytes that wait for the kernel before more is encrypted: four full records.
pub const SEALED_BYTES_HIGH: usize = 64 * 1024;

/// Steps in reading TLS, a record or a receive each, that one connection takes before others have their turn. Full
/// records never come to that: a turn receives sixteen ([`LOOP_BYTES_MAX`]).
pub const RECORDS_AT_ONCE_MAX: usize = 128;

/// Steps of handshakes that a core takes before it has looked at everything else once: with a signature of up to
/// 100 us (P-256) in each, others wait for less than half a millisecond.
pub const HANDSHAKE_STEPS_MAX: usize = 4;

/// How often a core says at most in the process log that a handshake has failed, with a client or with an endpoint; all
/// are counted.
pub const HANDSHAKE_LOG_INTERVAL_MS: u64 = 1_000;

/// The longest header of the PROXY protocol: what follows the addresses is skipped, but has to be received (HAProxy
/// takes as much as its 16 KiB buffer; 536 bytes are what the specification has everyone send in one segment).
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;

/// Sessions with endpoints that a core remembers by upstream, to be taken up again.
pub const TLS_SESSIONS_KEPT_MAX: usize = 256;

/// The largest file with certificates or keys: system bundles have some 250 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A certificate of a long life that ends within so many days is warned of; of others a third of their life decides.
pub const CERTIFICATE_EXPIRES_SOON_DAYS: i64 = 30;

/// Hops of a chain of proxies that are read and passed on, the nearest ones: what a client makes up may be longer.
pub const FORWARDED_HOPS_MAX: usize = 32;

/// Hops in Via beyond which a request goes round in circles.
pub const VIA_HOPS_MAX: usize = 32;

/// Bytes that are read to compare the ways in which endpoints may read one path: a path of 8 KiB may have encoded slashes
/// and parameters, one of 1 KiB all that there is. At some nanoseconds a byte it bounds a request's share of a core.
pub const PATH_BYTES_READ_MAX: usize = 128 * 1024;

const _: () = assert!(
    BLOCK_BYTES[1] >= RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX,
    "a full record fits in one block"
);
const _: () = assert!(BLOCK_BYTES[0] < BLOCK_BYTES[1] && BLOCK_BYTES[1] < BLOCK_BYTES[2]);
const _: () = assert!(
    BLOCK_BYTES[1] >= 16_384 + 9,
    "an HTTP/2 frame of default size fits in one block"
);
