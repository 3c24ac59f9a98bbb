//! Trailers: the fields after a body.

use alloc::vec::Vec;

use memchr::memchr;

use crate::error::Error;
use crate::field::{FieldId, FieldSet};
use crate::framing::{HEAD_FIELDS, HOP_FIELDS};
use crate::head::{Field, Head};
use crate::limits::{Limits, TRAILER_BYTES_KEPT, TRAILER_FIELDS_KEPT};
use crate::parse::{FieldLine, field_line};

/// The fields after the last chunk, or the field section that ends an HTTP/2 message. They are
/// never merged into the head.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    block: Vec<u8>,
    fields: Vec<Field>,
    line_start: usize,
    bytes_max: u32,
    fields_max: u32,
}

impl Trailers {
    /// Returns whether no fields remain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The names and values of the remaining fields, without those that are not allowed in
    /// trailers.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields()
            .map(|field| (field.name.get(&self.block), field.value.get(&self.block)))
    }

    /// The remaining fields. Their spans point into [`Trailers::block`].
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_removed)
    }

    /// The number of received fields, including removed ones.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The field at an index, removed or not, and its name.
    pub(crate) fn field(&self, at: usize) -> Option<(&Field, &[u8])> {
        let field = self.fields.get(at)?;
        Some((field, field.name.get(&self.block)))
    }

    /// Removes the field at an index.
    pub(crate) fn remove(&mut self, at: usize) {
        if let Some(field) = self.fields.get_mut(at) {
            field.is_removed = true;
        }
    }

    /// The bytes that the spans of the fields point into.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Replaces the contents with the fields of `head`, which another parser has checked. Their
    /// spans point into `block`.
    pub fn fill(&mut self, head: &Head, block: &[u8]) {
        self.clear();
        self.block.extend_from_slice(block);
        self.fields.extend(head.iter().map(|field| Field {
            is_removed: NOT_IN_TRAILERS.has(field.id),
            ..*field
        }));
    }

    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.trailer_bytes_max,
            fields_max: limits.fields_max,
            ..Self::default()
        }
    }

    /// Removes all fields. Keeps a usual capacity and frees what a large section took, so that an
    /// idle connection does not hold it.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.block.clear();
        self.fields.clear();
        self.line_start = 0;
        if self.block.capacity() > TRAILER_BYTES_KEPT {
            self.block = Vec::new();
        }
        if self.fields.capacity() > TRAILER_FIELDS_KEPT {
            self.fields = Vec::new();
        }
    }

    /// Parses bytes of the section. Returns how many were consumed, and whether the section has
    /// ended.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), Error> {
        if self.block.is_empty() && input.starts_with(b"\r\n") {
            return Ok((2, true));
        }
        let mut at = 0;
        while at < input.len() {
            let rest = input.get(at..).unwrap_or_default();
            let line_end = memchr(b'\n', rest);
            let len = line_end.map_or(rest.len(), |lf| lf + 1);
            let room = (self.bytes_max as usize).saturating_sub(self.block.len());
            let piece = rest.get(..len).filter(|piece| piece.len() <= room);
            self.block
                .extend_from_slice(piece.ok_or(Error::TrailersTooLarge)?);
            at += len;
            if line_end.is_some() && self.take_line()? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Parses the line at the end of the block. Returns whether it is the empty line.
    fn take_line(&mut self) -> Result<bool, Error> {
        match field_line(&self.block, self.line_start)? {
            FieldLine::Empty => Ok(true),
            FieldLine::Field {
                id,
                is_odd: _,
                name,
                value,
                next,
            } => {
                if self.fields.len() >= self.fields_max as usize {
                    return Err(Error::TrailersTooLarge);
                }
                //= rfc9110#6.5.1
                // Fields for framing, routing, authentication and the like have no meaning here.
                let is_removed = NOT_IN_TRAILERS.has(id);
                self.fields.push(Field {
                    id,
                    name,
                    value,
                    is_removed,
                    ..Field::default()
                });
                self.line_start = next;
                Ok(false)
            }
        }
    }
}

const NOT_IN_TRAILERS: FieldSet = HEAD_FIELDS.with(HOP_FIELDS).with(FieldSet::of(&[
    FieldId::Pragma,
    FieldId::Age,
    FieldId::Expires,
    FieldId::Location,
    FieldId::RetryAfter,
    FieldId::MaxForwards,
    FieldId::IfRange,
    FieldId::IfMatch,
    FieldId::IfNoneMatch,
    FieldId::IfModifiedSince,
    FieldId::IfUnmodifiedSince,
]));
