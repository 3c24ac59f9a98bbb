//! The kinds of policies, in the order in which they run.

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident $key:literal;)+) => {
        /// A kind of policy. Steps of a route run in this order. Steps of one kind run in the order of the file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum PolicyKind { $($(#[doc = $doc])+ $name,)+ }

        impl PolicyKind {
            /// All kinds, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name in metrics, the log and `weir explain`: the key in the file.
            #[must_use]
            pub const fn key(self) -> &'static str { match self { $(Self::$name => $key,)+ } }
        }
    };
}

kinds! {
    /// Allows and denies client addresses.
    Ip "ip";
    /// Says which web pages of other origins may read answers.
    Cors "cors";
    /// Limits requests that run at once.
    Concurrency "concurrency";
    /// Limits the rate of requests.
    Limit "limit";
    /// Verifies tokens.
    Jwt "jwt";
    /// Asks another server whether the request may pass.
    ForwardAuth "forward_auth";
    /// A `limit` by a claim of the token, which must be verified first.
    ClaimLimit "claim_limit";
    /// Adds fields that make browsers careful.
    SecurityHeaders "security_headers";
    /// Changes fields of requests and answers.
    Headers "headers";
    /// Compresses answers.
    Compress "compress";
    /// Sends copies of requests to another upstream.
    Mirror "mirror";
}
