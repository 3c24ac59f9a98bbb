//! Limits and defaults of the proxy that the file cannot set.
//!
//! The name of each has its unit, and the comment its source. `weir_proto_h1::limits` has the limits of parsing.

/// Sizes of pooled blocks, smallest first. The first holds a usual head. Bulk bodies move in the last, so a megabyte
/// takes sixteen receives. 16 KiB is the size of HAProxy's buffers and the largest HTTP/2 frame by default.
pub const BLOCK_BYTES: [usize; 3] = [4 * 1024, 16 * 1024 + 64, 64 * 1024];

/// Room in front of the bytes of each block, for a chunk-size line (18 bytes) or an HTTP/2 frame header (9).
pub const HEADROOM_BYTES: usize = 64;

/// Bytes of free blocks that a pool keeps per size. It gives more back to the allocator.
pub const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Receives per core that may hold a block while no data has come. Beyond that, a socket half waits for readiness and
/// takes a block when there is data, so that idle connections hold no buffer.
pub const ARMED_RECEIVES_MAX: usize = 256;

/// Entries of a core's submission queue under monoio. A full queue forces an early system call, and monoio cannot
/// recover from one that stays full.
pub const RING_ENTRIES: u32 = 4096;

/// Entries of a core's submission queue under Weir's own driver. Submissions beyond that wait in memory. A few
/// kilobytes that are reused stay in the CPU cache.
pub const RING_SUBMISSIONS: u32 = 256;

/// Entries of a core's completion queue: the most that one iteration of the loop takes in. The kernel keeps completions
/// that find no room.
pub const RING_COMPLETIONS: u32 = 4096;

/// Sockets to which a core sends in one go.
pub const SEND_BATCH_MAX: usize = 32;

/// Bytes that wait for such a batch on one connection. Linux takes as many on a connection whose bytes the peer has read
/// (`tcp_wmem`).
pub const SEND_BATCH_BYTES_MAX: usize = 16 * 1024;

/// Tasks that one iteration of the loop runs besides the tasks that were ready when it began.
pub const LOOP_WAKES_MAX: usize = 64;

/// Bytes that one connection receives in one iteration of the loop: as many as one splice moves.
pub const LOOP_BYTES_MAX: u32 = SPLICE_BYTES_MAX as u32;

/// How late a core may notice what arrives on a connection from which it expects nothing, such as the end of a client
/// whose request an endpoint serves. Most exchanges take less, and their connections need no watch at all.
pub const SILENCE_MS: u64 = 2 * TIMER_TICK_MS;

/// Steps that a connection's task may take before it lets other tasks run. A step is a piece of a body or a frame; the
/// smallest takes less than a microsecond.
pub const SHARE_STEPS: u32 = 256;

/// Bytes of an HTTP/2 head or of trailers that count as one more step. A hundred fields take as long as that many
/// pieces of a body.
pub const H2_HEAD_STEP_BYTES: usize = 64;

/// Steps that one HTTP/1.1 exchange counts as. Eight exchanges use up [`SHARE_STEPS`], so 250 pipelining clients delay
/// everybody else by at most 2,000 local answers.
pub const EXCHANGE_STEPS: u32 = 32;

/// Requests of one HTTP/2 connection that get tasks before other connections run. Answers made in the same iteration
/// leave in one send.
pub const H2_REQUESTS_AT_ONCE_MAX: usize = 16;

/// Messages that a core takes from its mailbox before it turns to its other work.
pub const MAILBOX_MESSAGES_AT_ONCE_MAX: usize = 64;

/// Connections that a core accepts from one listener at a time, so that a storm of connections does not delay other
/// work.
pub const ACCEPTS_AT_ONCE_MAX: u32 = 16;

/// Accepts that each core keeps posted for each listener under monoio, where one accept takes one iteration of the
/// loop. Weir's own driver posts one accept and drains the queue.
pub const ACCEPTS_POSTED: usize = 8;

/// Chunks in one vectored send.
pub const SEND_CHUNKS_MAX: usize = 16;

/// Data shorter than this is copied into the block that is being written, because one more entry in a vectored send
/// costs more than the copy.
pub const COPY_BELOW_BYTES: usize = 2_048;

/// A queued piece keeps its receive block if it fills at least this share of it (a quarter). Smaller pieces are copied.
/// So queued data costs at most four times its size.
pub const PIECE_SHARE_MIN: usize = 4;

/// Bytes queued in one direction of an exchange at which Weir stops reading the source. With the block in flight, this
/// is what a client costs that does not read.
pub const QUEUED_BYTES_HIGH: usize = 128 * 1024;

/// Bytes of a request body that Weir keeps for another attempt (Pingora keeps 64 KiB).
pub const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// Connections that may fail for one exchange, each at another endpoint if there is one (HAProxy's `retries 3` tries
/// three more times, nginx tries every endpoint). With `connect` at 2 s, a client waits at most six seconds.
pub const CONNECTS_MAX: u32 = 3;

/// How long a core keeps an idle connection to an endpoint while requests of other cores wait longer and all slots of
/// the endpoint are taken. A slot moves by a close and a connect; this bounds that cost to twenty a second for each
/// slot.
pub const SLOT_KEPT_MS: u64 = 50;

/// Bodies of this length or more go from socket to socket without being copied to Weir and back. Measured, 16 KiB
/// answers cost a seventh less CPU this way. For shorter bodies, the three system calls cost about as much as the
/// copies.
pub const SPLICE_BYTES_MIN: u64 = 16 * 1024;

/// A connection that Weir passes on goes on with a pipe while each splice moves at least this much. For less, a
/// receive and a send cost fewer system calls.
pub const RELAY_PASS_BYTES_MIN: usize = 8 * 1024;

/// Bytes of a TLS ClientHello that Weir reads to find the server name (nginx `preread_buffer_size` and HAProxy
/// `tune.bufsize`: 16 KiB).
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the datagrams that Weir sends with one call: what fits in an IP packet, beside the headers of IPv6 and UDP.
pub const DATAGRAM_TRAIN_BYTES_MAX: usize = 65_535 - 40 - 8;

/// Where the hash of a flow's client begins. It is the same in every process, so that a client keeps its endpoint.
pub const FLOW_KEY_SEED: u64 = 0x5851_f42d_4c95_7f2d;

/// Bytes that one splice moves, and the size that Weir asks for its pipes: a quarter of the most that any process may
/// ask for (Linux `pipe-max-size`). Half of it and four times as much cost the same CPU.
pub const SPLICE_BYTES_MAX: usize = 256 * 1024;

/// Pipes per core. A slow reader holds a pipe while bytes wait in it. Each pipe is two descriptors. Bodies that get no
/// pipe are copied.
pub const PIPES_MAX: usize = 256;

/// Empty pipes that a core keeps for later bodies.
pub const PIPES_KEPT_MAX: usize = 16;

/// For how many connections the tables of a core have room from the start. Pages that nothing has touched take no
/// memory, so this costs 7 MB of addresses. A table that grows copies itself and leaves its old pages to the allocator.
pub const TABLE_PLACES: usize = 1 << 16;

/// How long a connection without a request keeps the memory of its last exchange.
pub const IDLE_AFTER_MS: u64 = 100;

/// Active connections per core above which a connection gives that memory back at once. Memory is then scarcer than the
/// allocation that waiting saves.
pub const WAITING_CONNECTIONS_MAX: usize = 256;

/// How long Weir reads from a closing connection, so that a reset does not destroy the last answer (nginx
/// `lingering_timeout`: 5 s).
pub const LINGER_MS: u64 = 2_000;

/// How many bytes Weir reads from a closing connection and discards.
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Sub-requests that a core runs at once for clients that wait for them. More are refused, so that a slow
/// authorization server cannot make a core hold an unbounded number of answers.
pub const CALLS_MAX: usize = 10_000;

/// Sub-requests that a core runs at once on its own, while no client waits. More are dropped and counted.
pub const DETACHED_CALLS_MAX: usize = 1_000;

/// Bytes of memory that a core's copies of request bodies (`mirror`) hold at once. Requests beyond it are not copied.
pub const MIRRORED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The largest answer of an authorization server that clients get: login pages with their pictures inside fit.
pub const AUTH_BODY_BYTES_MAX: usize = 256 * 1024;

/// Verdicts of an authorization server that a core keeps for one `forward_auth`.
pub const AUTH_VERDICTS_MAX: usize = 10_000;

/// Memory of these verdicts, at most, with the requests that they are about: 800 bytes for each. See
/// [`POLICIES_SHARE`].
pub const AUTH_VERDICTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Memory that a field of a sub-request's answer takes besides its bytes: two pointers with lengths, one capacity, and
/// what the allocator adds.
pub const CALL_FIELD_BYTES: usize = 72;

/// How much of a request body Weir reads after it has answered, to keep the connection (Go's server reads 256 KiB).
pub const UNREAD_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a request id that a trusted proxy may set. UUIDs have 36, AWS trace ids up to 74; Heroku takes 200.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// The resolution of deadlines.
pub const TIMER_TICK_MS: u64 = 20;

/// How long retries leave an endpoint alone at most that asks for it with `Retry-After`. A longer outage is for health
/// checks to find out.
pub const RETRY_AFTER_MAX_MS: u64 = 10_000;

/// How often a core looks for idle upstream connections to close.
pub const HOUSEKEEPING_MS: u64 = 1_000;

/// How long a core that has seen an endpoint fail stays away from it without a word from control, which reads reports ten
/// times a second. Unit: milliseconds.
pub const LOCAL_EJECTION_MS: u64 = 2_000;

/// How long a core waits before it reports again that an endpoint may fail, or answers again. Unit: milliseconds.
pub const SUSPICION_MS: u64 = 250;

/// How often the weights of endpoints in slow start change. Unit: milliseconds.
pub const RAMP_STEP_MS: u64 = 1_000;

/// Messages that a core's mailbox holds.
pub const MAILBOX_MESSAGES_MAX: usize = 1_024;

/// How long handshakes that have begun may complete before a listener closes: longer than most round trips. Only a
/// shutdown, and a reload that removes a listener, wait for it.
pub const LISTENER_SETTLE_MS: u64 = 200;

/// Connections that a core accepts from the queue of a closing listener: the longest queue there can be.
pub const CLOSING_LISTENER_ACCEPTS_MAX: u32 = 65_535;

/// How long a core accepts from the queue of a closing listener.
pub const CLOSING_LISTENER_MS: u64 = 1_000;

/// How long a new connection may take to send its first bytes while Weir drains. They are usually on their way. A lost
/// segment is sent again after 1 s (RFC 6298).
pub const DRAIN_FIRST_BYTES_MS: u64 = 2_000;

/// Open files reserved for control: its event loop, signals, logs, the admin listener and its connections, files that a
/// reload reads, and name lookups.
pub const CONTROL_FILES: u64 = 96;

/// Open files reserved for each core besides sockets and pipes: its ring, its doorbell, and a few to spare.
pub const CORE_FILES: u64 = 8;

/// Memory that each client connection counts as when Weir works out how many connections the machine allows: what a
/// stuck connection takes.
pub const CONNECTION_BYTES: u64 = 64 * 1024;

/// Client connections that Weir serves however little the machine allows.
pub const CONNECTIONS_MIN: u64 = 16;

/// Unsent bytes that the kernel queues on a connection. Without this bound, Linux queues up to 4 MiB (`tcp_wmem`) for
/// each client that does not read. Several large sites use 128 KiB.
pub const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Kernel memory that a connection counts as when its peer does not read: the unsent bytes, and about as many received
/// ones on the other side.
pub const KERNEL_QUEUED_BYTES: usize = 2 * UNSENT_BYTES_MAX as usize;

/// Memory that an idle client connection counts as: socket, file and task.
pub const IDLE_CONNECTION_BYTES: usize = 8 * 1024;

/// Memory that an idle TLS session counts as.
pub const IDLE_TLS_BYTES: usize = 24 * 1024;

/// Memory that a connection with a request counts as in addition: the state of the exchange and its reused buffers.
pub const ACTIVE_CONNECTION_BYTES: usize = 16 * 1024;

/// Free blocks of each size take at most one part in this many of a core's memory.
pub const POOL_SHARE: usize = 16;

/// What policies keep from requests, verified tokens and verdicts, takes at most one part in this many of a core's
/// memory.
pub const POLICIES_SHARE: usize = 8;

/// The longest local answer that Weir sends while memory is short.
pub const SMALL_ANSWER_BYTES: usize = 4 * 1024;

/// Memory per core unless the file sets it. Weir leaves the rest to other programs on the machine.
pub const MEMORY_PER_CORE_MAX: usize = 1024 * 1024 * 1024;

/// Idle connections to endpoints that a core closes at a time if it finds no descriptor for a new one.
pub const IDLE_CLOSED_AT_ONCE: usize = 8;

/// How long a core waits after an accept fails with an error that is likely to last.
pub const ACCEPT_RETRY_MS: u64 = 50;

/// How long Weir waits before it connects again to a Unix socket whose queue is full. The kernel does not report when
/// there is room.
pub const CONNECT_RETRY_MS: u64 = 1;

/// A core hands new connections to other cores if it has more than this share of the mean, in percent. Envoy's
/// balancers move every connection; only the excess is worth the cost.
pub const SPREAD_PERCENT_MAX: u64 = 125;

/// A core with fewer connections than this hands none on, because small numbers are never even.
pub const SPREAD_MIN: u64 = 8;

/// Bytes queued on an HTTP/2 connection at which Weir frames and receives nothing more. A peer that does not read costs
/// this much and what its streams hold.
pub const H2_QUEUED_BYTES_HIGH: usize = 128 * 1024;

/// Bytes queued on one HTTP/2 stream at which Weir stops reading the source, while frames go out.
pub const H2_STREAM_QUEUED_BYTES_HIGH: usize = 32 * 1024;

/// As [`H2_STREAM_QUEUED_BYTES_HIGH`], while the window is shut or the peer does not read. All streams of a connection
/// may be blocked at once, so each holds only one frame's worth.
pub const H2_BLOCKED_QUEUED_BYTES_HIGH: usize = 16 * 1024;

/// If a window has room for less than this and more data waits, Weir waits for a larger window. Framing would be an
/// eighth of a frame of 64 bytes, and `weir_proto_h2` counts so small a piece as none (`TINY_DATA_BYTES`).
pub const H2_TINY_WINDOW_BYTES: usize = 64;

/// How long Weir waits for a larger window. A peer with tiny windows gets its data at that pace (for TCP's silly
/// windows, RFC 1122, section 4.2.3.4, has the sender wait 100 ms or more).
pub const H2_TINY_WINDOW_MS: u64 = 20;

/// One of this many pieces that Weir frames on an HTTP/2 connection is from a stream other than the most urgent, so no
/// stream starves.
pub const H2_FAIR_TURN: usize = 16;

/// Receives that an HTTP/2 connection handles before it sends.
pub const H2_RECEIVES_MAX: usize = 16;

/// Idle tasks that an HTTP/2 connection keeps for its next requests: as many as it may have concurrent requests, unless
/// the file allows more.
pub const H2_IDLE_WORKERS_MAX: usize = 100;

/// How long Weir still takes requests after its first GOAWAY to an HTTP/2 client: a round trip
/// around the world, and some time to spare.
pub const H2_DRAIN_MS: u64 = 1_000;

/// How long an endpoint may take from the connect to its SETTINGS, which need no work: as long as a client may take for
/// a request head.
pub const H2_SETTINGS_TIMEOUT_MS: u64 = 10_000;

/// How long an endpoint may leave the stream of a complete answer open, once the client has all of the answer, before
/// Weir resets the stream.
pub const H2_END_MS: u64 = 2_000;

/// How long an endpoint that owes answers may be silent before Weir sends it a PING (gRPC libraries wait 10 s or more).
pub const H2_PING_AFTER_MS: u64 = 10_000;

/// PINGs that Weir sends an endpoint this early without another HEADERS or DATA frame from it. A gRPC server forgives
/// the first PING after a message of its own and two early ones (grpc-go `maxPingStrikes`, gRPC core
/// `max_ping_strikes`). Weir keeps one in reserve for a message that crosses a PING.
pub const H2_PINGS_EARLY_MAX: u8 = 2;

/// The time between PINGs beyond [`H2_PINGS_EARLY_MAX`]. A gRPC server counts a PING as too early within 5 minutes of
/// the one before (grpc-go `EnforcementPolicy.MinTime`, gRPC core `min_recv_ping_interval_without_data_ms`). Ten
/// seconds more allow for network delay.
pub const H2_PING_INTERVAL_MS: u64 = 310_000;

/// Interim answers that wait on an HTTP/2 stream for the exchange to take them.
pub const H2_INTERIM_WAITING_MAX: usize = 16;

/// How long Weir keeps a connection that belongs to one client although other requests wait for a connection. The few
/// requests of a handshake follow each other at once.
pub const BOUND_KEPT_MS: u64 = 1_000;

/// Silence on a connection to an endpoint before the kernel probes the other machine.
pub const TCP_PROBE_AFTER_MS: u64 = 30_000;

/// The time between two probes.
pub const TCP_PROBE_INTERVAL_MS: u64 = 10_000;

/// How long an endpoint's machine may leave probes and sent data unacknowledged before the kernel gives the connection
/// up (`TCP_USER_TIMEOUT`): the first probe and three more. Cloudflare matches the two settings in the same way. gRPC
/// libraries allow 20 s (proposal A18).
pub const TCP_DEAD_AFTER_MS: u64 = 60_000;

/// How long an endpoint may take to answer a PING (gRPC libraries wait 20 s, Go's client 15 s).
pub const H2_PING_TIMEOUT_MS: u64 = 15_000;

/// How long an endpoint may read nothing while Weir has data for it.
pub const H2_SEND_STALL_MS: u64 = 30_000;

/// The most plaintext in one TLS record (RFC 8446, section 5.1).
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The most bytes that a record adds: header, explicit nonce, inner type and tag; or a whole alert.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 48;

/// Encrypted bytes queued for the kernel at which Weir stops encrypting: four full records.
pub const SEALED_BYTES_HIGH: usize = 64 * 1024;

/// Steps of reading TLS, a record or a receive each, that one connection takes before others run. Full records never
/// reach this: one iteration of the loop receives sixteen ([`LOOP_BYTES_MAX`]).
pub const RECORDS_AT_ONCE_MAX: usize = 128;

/// Handshake steps that a core takes before it turns to its other work once. With a signature of up to 100 us (P-256)
/// in each, other connections wait less than half a millisecond.
pub const HANDSHAKE_STEPS_MAX: usize = 4;

/// Steps of other costly work, such as compression, that a core takes before it turns to its other work once.
pub const WORK_STEPS_MAX: usize = 1;

/// Microseconds of work, as filters estimate it, that the filters of one body may do in one turn. A filter may finish the
/// step that it has begun, and a step takes up to 120 us.
pub const FILTER_BUDGET_US: u32 = 50;

/// Turns that a filtered body has in a row before it waits behind other bodies. gzip codes 32 KiB in them.
pub const FILTER_TURNS_IN_ROW: u32 = 8;

/// The window of the coding `zstd`, as a power of two: 256 KiB. RFC 9659 allows 8 MiB. Measured, 512 KiB would make text
/// 1 % shorter and take 0.3 MB more for each answer.
pub const ZSTD_WINDOW_LOG: u32 = 18;

/// Memory of a zstd coder, measured.
pub const ZSTD_STATE_BYTES: usize = 1_750_000;

/// The window of the coding `br` up to level 4 and above, as powers of two: 256 KiB and 1 MiB. Measured, higher levels
/// need a longer window to compress better than level 4.
pub const BROTLI_WINDOW_LOGS: [u32; 2] = [18, 20];

/// Memory of a Brotli coder up to level 4 and above, measured.
pub const BROTLI_STATE_BYTES: [usize; 2] = [1_300_000, 4_600_000];

/// Memory of a gzip coder, measured.
pub const GZIP_STATE_BYTES: usize = 400_000;

/// Idle coders that a core keeps for the next answers, of all codings and levels together. Filters finish one answer
/// before they begin the next where they can, so a few suffice. Their bytes are limited like those of free blocks.
pub const IDLE_CODERS_MAX: usize = 16;

/// The shortest time between two lines in the process log about failed handshakes, with clients and with endpoints
/// separately. Metrics count all of them.
pub const HANDSHAKE_LOG_INTERVAL_MS: u64 = 1_000;

/// The longest header of the PROXY protocol. Weir skips what follows the addresses, but has to receive it. HAProxy
/// takes as much as its 16 KiB buffer; the specification allows 536 bytes in one segment.
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;

/// TLS sessions with endpoints that a core keeps for resumption, per upstream.
pub const TLS_SESSIONS_KEPT_MAX: usize = 256;

/// The largest list of networks. A million networks have about 16 MiB.
pub const IP_LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The largest file of certificates or keys. System bundles have about 250 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Weir warns of a long-lived certificate that expires within this many days, and of others in the last third of their
/// life.
pub const CERTIFICATE_EXPIRES_SOON_DAYS: i64 = 30;

/// Hops of a forwarded chain that Weir reads and passes on, the nearest ones. A client may invent a longer chain.
pub const FORWARDED_HOPS_MAX: usize = 32;

/// Hops in Via beyond which Weir takes a request for one that loops.
pub const VIA_HOPS_MAX: usize = 32;

/// Bytes that Weir reads to compare the ways in which endpoints may read one path. A path of 8 KiB may have encoded
/// slashes and parameters, one of 1 KiB every ambiguity. At a few nanoseconds a byte, this bounds a request's share of
/// a core.
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

/// The longest token that Weir reads, in bytes. Tokens with many groups reach 8 KiB, and heads end at 64 KiB.
pub const JWT_BYTES_MAX: usize = 16 * 1024;

/// Keys of one issuer. Issuers that rotate have two or three of each type; ALB takes ten.
pub const JWT_KEYS_MAX: usize = 64;

/// The size of RSA keys, in bits: RFC 7518, section 3.3, and the limit of the cryptographic library.
pub const RSA_BITS_MIN: usize = 2048;
/// See [`RSA_BITS_MIN`].
pub const RSA_BITS_MAX: usize = 8192;

/// Verified tokens that a core keeps for one set of rules.
pub const JWT_CACHE_TOKENS_MAX: usize = 8 * 1024;

/// Bytes of verified tokens and their claims that a core keeps for one set of rules, at most; see [`POLICIES_SHARE`]. A
/// usual token takes 2 KiB.
pub const JWT_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of a file with an error page. Pages with pictures in them take up to 200 KiB.
pub const ERROR_PAGE_BYTES_MAX: u64 = 256 * 1024;

/// Bytes of the automaton that the regular expressions of one list of origins become. One expression has at most 1 MiB.
pub const ORIGINS_REGEX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that a core keeps to match the regular expressions of one list of origins. Beyond that, matching starts anew.
pub const ORIGINS_REGEX_CACHE_BYTES: usize = 256 * 1024;
