//! The content codings, behind one interface.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::Coding;
use crate::limits::{
    BROTLI_STATE_BYTES, BROTLI_WINDOW_LOGS, GZIP_STATE_BYTES, ZSTD_STATE_BYTES, ZSTD_WINDOW_LOG,
};

/// Compresses one body.
pub(super) enum Coder {
    Zstd(CCtx<'static>),
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Gzip(Compress),
}

/// What a coder does behind the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Nothing: it may keep what it has taken.
    More,
    /// It writes everything that it has taken, so that the receiver can decode it.
    Flush,
    /// It ends the body.
    End,
}

/// What a call of [`Coder::code`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Bytes of the input that the coder has taken.
    pub(super) taken: usize,
    /// Bytes that it has written.
    pub(super) written: usize,
    /// The operation is complete. Otherwise the output was too short: call again with the rest of the input.
    pub(super) is_complete: bool,
}

/// The coder has failed: a bug, or no memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoderError;

impl Coder {
    /// Begins a body. `length` is how long it is, if that is known.
    pub(super) fn new(coding: Coding, level: u8, length: Option<u64>) -> Result<Self, CoderError> {
        match coding {
            Coding::Zstd => begin_zstd(level, length).ok_or(CoderError),
            Coding::Brotli => Ok(begin_brotli(level)),
            Coding::Gzip => {
                let level = Compression::new(u32::from(level));
                Ok(Self::Gzip(Compress::new_gzip(level, GZIP_WINDOW_LOG)))
            }
        }
    }

    /// Whether [`Coder::reset`] can make the coder begin anew. The crate of Brotli has no such function; its coder takes
    /// its memory as the body needs it, so a short body costs little.
    pub(super) fn can_reset(&self) -> bool {
        !matches!(self, Self::Brotli(_))
    }

    /// Begins another body, with the level and the memory of the one before. `false`: the coder cannot be used again.
    pub(super) fn reset(&mut self, length: Option<u64>) -> bool {
        match self {
            Self::Zstd(context) => {
                let reset = context.reset(ResetDirective::SessionOnly);
                reset.is_ok() && (length.is_none() || context.set_pledged_src_size(length).is_ok())
            }
            Self::Brotli(_) => false,
            Self::Gzip(state) => {
                state.reset();
                true
            }
        }
    }

    /// Codes `input` into `output`, then does `operation`.
    pub(super) fn code(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        operation: Operation,
    ) -> Result<Progress, CoderError> {
        match self {
            Self::Zstd(context) => code_zstd(context, input, output, operation),
            Self::Brotli(state) => code_brotli(state, input, output, operation),
            Self::Gzip(state) => code_gzip(state, input, output, operation),
        }
    }
}

/// Bytes of memory that a coder takes for a body of this length. Measured and rounded up.
pub(super) fn state_bytes(coding: Coding, level: u8, length: Option<u64>) -> usize {
    let length = length.map_or(usize::MAX, |length| length as usize);
    let times = |factor: usize| length.saturating_mul(factor);
    // Windows are no longer than the body. Tables of zstd grow with the body too, those of Brotli hardly.
    match coding {
        Coding::Zstd => ZSTD_STATE_BYTES.min(times(17).saturating_add(64 * 1024)),
        Coding::Brotli => {
            let [low, high] = BROTLI_STATE_BYTES;
            let most = if level <= 4 { low } else { high };
            most.min(times(8).saturating_add(low / 2))
        }
        Coding::Gzip => GZIP_STATE_BYTES,
    }
}

/// The window of gzip: 32 KiB, the most that the format allows.
const GZIP_WINDOW_LOG: u8 = 15;

//= rfc9659#3
// The window of the coding `zstd` is at most 8 MiB.
fn begin_zstd(level: u8, length: Option<u64>) -> Option<Coder> {
    let mut context = CCtx::try_create()?;
    let mut set = |parameter| context.set_parameter(parameter).ok();
    set(CParameter::CompressionLevel(i32::from(level)))?;
    set(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
    if level >= 3 {
        // For bodies of unknown length, these levels choose tables several times as large as the window.
        let table_log = ZSTD_WINDOW_LOG - if level == 3 { 2 } else { 1 };
        set(CParameter::HashLog(table_log))?;
        set(CParameter::ChainLog(table_log))?;
    }
    if length.is_some() {
        context.set_pledged_src_size(length).ok()?;
    }
    Some(Coder::Zstd(context))
}

fn code_zstd(
    context: &mut CCtx<'static>,
    input: &[u8],
    output: &mut [u8],
    operation: Operation,
) -> Result<Progress, CoderError> {
    let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
    let directive = match operation {
        Operation::More => ZSTD_EndDirective::ZSTD_e_continue,
        Operation::Flush => ZSTD_EndDirective::ZSTD_e_flush,
        Operation::End => ZSTD_EndDirective::ZSTD_e_end,
    };
    let left = context.compress_stream2(&mut to, &mut from, directive);
    let left = left.map_err(|_| CoderError)?;
    let (taken, written) = (from.pos, to.pos());
    Ok(Progress {
        taken,
        written,
        is_complete: taken == input.len() && (left == 0 || operation == Operation::More),
    })
}

fn begin_brotli(level: u8) -> Coder {
    let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
    let [low, high] = BROTLI_WINDOW_LOGS;
    let window_log = if level <= 4 { low } else { high };
    let mut set = |parameter, value| state.set_parameter(parameter, value);
    set(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, level.into());
    set(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, window_log);
    Coder::Brotli(state)
}

fn code_brotli(
    state: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    output: &mut [u8],
    operation: Operation,
) -> Result<Progress, CoderError> {
    let (mut left, mut taken) = (input.len(), 0);
    let (mut room, mut written) = (output.len(), 0);
    let operation = match operation {
        Operation::More => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Operation::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Operation::End => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    let is_well = state.compress_stream(
        operation,
        &mut left,
        input,
        &mut taken,
        &mut room,
        output,
        &mut written,
        &mut None,
        &mut |_, _, _, _| (),
    );
    match is_well {
        true => Ok(Progress {
            taken,
            written,
            is_complete: left == 0 && !state.has_more_output(),
        }),
        false => Err(CoderError),
    }
}

fn code_gzip(
    state: &mut Compress,
    input: &[u8],
    output: &mut [u8],
    operation: Operation,
) -> Result<Progress, CoderError> {
    let before = (state.total_in(), state.total_out());
    let flush = match operation {
        Operation::More => FlushCompress::None,
        Operation::Flush => FlushCompress::Sync,
        Operation::End => FlushCompress::Finish,
    };
    let status = state.compress(input, output, flush);
    let status = status.map_err(|_| CoderError)?;
    let taken = (state.total_in() - before.0) as usize;
    let written = (state.total_out() - before.1) as usize;
    // A full output may hide that more is to come.
    let is_complete = match operation {
        Operation::End => status == Status::StreamEnd,
        _ => taken == input.len() && written < output.len(),
    };
    Ok(Progress {
        taken,
        written,
        is_complete,
    })
}
