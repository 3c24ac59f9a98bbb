//! Blocks and chunks, the only memory that bytes travel in.
//!
//! A *block* is a pooled piece of memory with [`HEADROOM_BYTES`] in front, so that a chunk-size line or a frame header
//! can be written before the data without moving it. A [`Chunk`] is a counted view into a block. Dropping the last view
//! returns the block to its core's [`Pool`]. The counts are not atomic, so neither type leaves its core. Two types own
//! a block alone: the kernel fills a [`ReceiveBlock`], and our code writes an [`OutBlock`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::limits::{BLOCK_BYTES, HEADROOM_BYTES, POOL_BYTES_MAX};

/// The header in front of every block's bytes.
struct BlockHeader {
    /// How many chunks view the block.
    views: Cell<u32>,
    /// Bytes behind the header, headroom included.
    room: u32,
    /// Index into the pool's free lists; `UNPOOLED` for a block of another size.
    class: u8,
    /// The pool that the block returns to. `None` while the block lies in the pool, so that the pool can be freed.
    home: Option<Rc<PoolState>>,
}

const UNPOOLED: u8 = u8::MAX;
const HEADER_BYTES: usize = size_of::<BlockHeader>();

/// The free blocks of each size class, as stacks: caches still hold the block used last.
struct PoolState {
    free: [RefCell<Vec<NonNull<BlockHeader>>>; BLOCK_BYTES.len()],
    live: Cell<usize>,
    /// Bytes that TLS and the kernel use for the core's connections.
    charged: Cell<usize>,
    /// The limit on live and charged bytes together.
    most: Cell<usize>,
    /// How many bytes of free blocks the pool keeps in each class.
    kept_max: Cell<usize>,
    /// The fewest free blocks of each class since the last trim: blocks that the core has not needed since.
    spare: [Cell<usize>; BLOCK_BYTES.len()],
}

/// The blocks of one core. A clone is another handle to the same pool.
#[derive(Clone)]
pub struct Pool {
    state: Rc<PoolState>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    /// Makes an empty pool. It allocates blocks on demand and keeps up to [`POOL_BYTES_MAX`] of free ones in each
    /// class.
    pub fn new() -> Self {
        let state = PoolState {
            free: Default::default(),
            live: Cell::new(0),
            charged: Cell::new(0),
            most: Cell::new(usize::MAX),
            kept_max: Cell::new(POOL_BYTES_MAX),
            spare: Default::default(),
        };
        Self {
            state: Rc::new(state),
        }
    }

    /// Bytes of the blocks in use, for metrics and tests.
    pub fn live_bytes(&self) -> usize {
        self.state.live.get()
    }

    /// Bytes of the blocks in use, plus the charged bytes: the memory of the core's connections.
    #[inline]
    pub fn taken_bytes(&self) -> usize {
        self.state.live.get() + self.state.charged.get()
    }

    /// Sets the limit that [`Pool::has_room`] compares with. The pool itself refuses nothing.
    pub fn bound(&self, bytes: usize) {
        self.state.most.set(bytes);
    }

    /// Whether the memory in use is below the limit.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.taken_bytes() < self.state.most.get()
    }

    /// Counts bytes that TLS or the kernel uses until the returned charge is dropped.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.add_charge(bytes);
        Charge {
            state: self.state.clone(),
            bytes,
        }
    }

    /// Counts like [`Pool::charge`], until [`Pool::drop_charge`]. Use it where a [`Charge`] for each item costs too
    /// much.
    pub fn add_charge(&self, bytes: usize) {
        let charged = &self.state.charged;
        charged.set(charged.get() + bytes);
    }

    /// Undoes [`Pool::add_charge`].
    pub fn drop_charge(&self, bytes: usize) {
        let charged = &self.state.charged;
        charged.set(charged.get() - bytes);
    }

    /// Sets how many bytes of free blocks the pool keeps in each class.
    pub fn keep(&self, bytes: usize) {
        self.state.kept_max.set(bytes.min(POOL_BYTES_MAX));
    }

    /// How many bytes of free memory of one kind a core keeps for the next use.
    pub fn kept_bytes_max(&self) -> usize {
        self.state.kept_max.get()
    }

    /// Takes a block of the smallest class that holds `bytes`, for the kernel to fill.
    pub fn filling(&self, bytes: usize) -> ReceiveBlock {
        ReceiveBlock {
            block: self.take(bytes),
            start: HEADROOM_BYTES as u32,
            len: 0,
        }
    }

    /// Takes a block of the smallest class that holds `bytes`, for our code to write.
    pub fn out(&self, bytes: usize) -> OutBlock {
        OutBlock {
            block: self.take(bytes),
            len: 0,
            pool: self.clone(),
        }
    }

    /// Copies `bytes` into a new block.
    pub fn copy(&self, bytes: &[u8]) -> Chunk {
        let mut out = self.out(bytes.len());
        out.put(bytes);
        out.freeze()
    }

    /// Frees half of the blocks that nothing has needed since the last call. Called now and then, it returns a burst's
    /// memory to the allocator.
    pub fn trim(&self) {
        for (shelf, spare) in self.state.free.iter().zip(&self.state.spare) {
            let mut shelf = shelf.borrow_mut();
            let excess = spare.get().min(shelf.len()).div_ceil(2);
            shelf.drain(..excess).for_each(release);
            spare.set(shelf.len());
        }
    }

    fn take(&self, bytes: usize) -> Block {
        let class = BLOCK_BYTES.iter().position(|&size| size >= bytes);
        let pooled = class.and_then(|class| {
            let mut shelf = self.state.free[class].borrow_mut();
            let block = shelf.pop();
            let spare = &self.state.spare[class];
            spare.set(spare.get().min(shelf.len()));
            block
        });
        let header = pooled.unwrap_or_else(|| {
            let size = class.map_or(bytes, |class| BLOCK_BYTES[class]);
            allocate(
                size + HEADROOM_BYTES,
                class.map_or(UNPOOLED, |class| class as u8),
            )
        });
        // SAFETY: a block from a free list or fresh from `allocate` has no other view, and its header is initialised.
        unsafe {
            (*header.as_ptr()).views.set(1);
            (*header.as_ptr()).home = Some(self.state.clone());
            self.state
                .live
                .set(self.state.live.get() + (*header.as_ptr()).room as usize);
        }
        Block { header }
    }
}

/// Counts bytes of memory outside the pool while it lives.
pub struct Charge {
    state: Rc<PoolState>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let charged = &self.state.charged;
        charged.set(charged.get() - self.bytes);
    }
}

impl Drop for PoolState {
    fn drop(&mut self) {
        for shelf in &self.free {
            for header in shelf.borrow_mut().drain(..) {
                release(header);
            }
        }
    }
}

fn layout(room: usize) -> Layout {
    // Only sizes that the process chose itself get here, so an invalid layout is an allocation failure too.
    Layout::from_size_align(HEADER_BYTES + room, align_of::<BlockHeader>())
        .unwrap_or_else(|_| handle_alloc_error(Layout::new::<BlockHeader>()))
}

fn allocate(room: usize, class: u8) -> NonNull<BlockHeader> {
    let layout = layout(room);
    // SAFETY: the layout has at least the header's size, so it is not empty. The header is written before use. The
    // bytes behind it are zeroed, so all of a block is always initialised and can be lent as a slice.
    unsafe {
        let Some(header) = NonNull::new(alloc_zeroed(layout).cast::<BlockHeader>()) else {
            handle_alloc_error(layout)
        };
        header.write(BlockHeader {
            views: Cell::new(0),
            room: room as u32,
            class,
            home: None,
        });
        header
    }
}

fn release(header: NonNull<BlockHeader>) {
    // SAFETY: called once for a block without views, with the layout that `allocate` used.
    unsafe {
        let layout = layout(header.as_ref().room as usize);
        std::ptr::drop_in_place(header.as_ptr());
        dealloc(header.as_ptr().cast(), layout);
    }
}

/// One count of a block.
struct Block {
    header: NonNull<BlockHeader>,
}

impl Block {
    /// Whether one view alone shows the block, so nothing else reads bytes that are written to it.
    fn has_one_view(&self) -> bool {
        self.header().views.get() == 1
    }

    fn header(&self) -> &BlockHeader {
        // SAFETY: the block lives as long as a count of it does.
        unsafe { self.header.as_ref() }
    }

    fn bytes(&self) -> *mut u8 {
        // SAFETY: the bytes directly follow the header in the same allocation.
        unsafe { self.header.as_ptr().cast::<u8>().add(HEADER_BYTES) }
    }

    fn room(&self) -> usize {
        self.header().room as usize
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        let views = &self.header().views;
        views.set(views.get() + 1);
        Self {
            header: self.header,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let views = self.header().views.get() - 1;
        self.header().views.set(views);
        if views > 0 {
            return;
        }
        // SAFETY: no view is left, so no other code reads the header while this takes its home out.
        let home = unsafe { (*self.header.as_ptr()).home.take() };
        let (room, class) = (self.room(), self.header().class);
        let Some(home) = home else {
            return release(self.header);
        };
        home.live.set(home.live.get() - room);
        match home.free.get(class as usize) {
            Some(shelf) if shelf.borrow().len() * room < home.kept_max.get() => {
                shelf.borrow_mut().push(self.header);
            }
            _ => release(self.header),
        }
    }
}

/// A counted view of filled bytes. Dropping a block's last view frees the block. The default views nothing.
#[derive(Clone, Default)]
pub struct Chunk {
    block: Option<Block>,
    start: u32,
    end: u32,
}

impl Chunk {
    /// Length of the view.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the view is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The memory that this view costs, roughly: a view always costs at least the smallest block.
    pub fn weight(&self) -> usize {
        let least = self.block.as_ref().map_or(0, |_| BLOCK_BYTES[0]);
        self.len().max(least)
    }

    /// The size of the block that this view keeps in use.
    pub fn held_bytes(&self) -> usize {
        self.block
            .as_ref()
            .map_or(0, |block| block.room() - HEADROOM_BYTES)
    }

    /// Drops the first `n` bytes from the view, or all of them if it has fewer.
    pub fn advance(&mut self, n: usize) {
        self.start += n.min(self.len()) as u32;
    }

    /// Keeps the first `n` bytes of the view, or all of them if it has fewer.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.start + n.min(self.len()) as u32;
    }

    /// Another view, of `from..to` of this one; the range is clamped to this view.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let mut part = self.clone();
        part.truncate(to);
        part.advance(from);
        part
    }

    /// Splits off the first `n` bytes as a view of their own.
    pub fn split_to(&mut self, n: usize) -> Self {
        let front = self.slice(0, n);
        self.advance(n);
        front
    }

    /// Writes `bytes` directly in front of the view and extends the view over them. Does nothing if another view shares
    /// the block or there is no room. Returns whether it wrote.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(block) = self.block.as_ref().filter(|block| block.has_one_view()) else {
            return false;
        };
        if bytes.len() > self.start as usize {
            return false;
        }
        self.start -= bytes.len() as u32;
        // SAFETY: this is the only view of the block, so nothing reads the bytes before it. They lie within the block
        // because `start` does.
        unsafe {
            let to = block.bytes().add(self.start as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        true
    }

    /// Writes `bytes` directly behind the view and extends the view over them. Does nothing if another view shares the
    /// block or there is no room. Returns whether it wrote.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(block) = self.block.as_ref().filter(|block| block.has_one_view()) else {
            return false;
        };
        if bytes.len() > block.room() - self.end as usize {
            return false;
        }
        // SAFETY: as in `prepend`, for the bytes behind the only view.
        unsafe {
            let to = block.bytes().add(self.end as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.end += bytes.len() as u32;
        true
    }
}

impl Chunk {
    /// The viewed bytes, mutable; `None` if another view shares the block.
    pub fn lone_mut(&mut self) -> Option<&mut [u8]> {
        let block = self.block.as_ref()?;
        if block.header().views.get() != 1 {
            return None;
        }
        let (len, start) = (self.len(), self.start as usize);
        // SAFETY: `start..end` lies within the block and is initialised. This is the only view of the block, and the
        // slice borrows it.
        Some(unsafe { std::slice::from_raw_parts_mut(block.bytes().add(start), len) })
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(block) = &self.block else { return &[] };
        // SAFETY: `start..end` was filled before the chunk was made and lies within the block.
        unsafe { std::slice::from_raw_parts(block.bytes().add(self.start as usize), self.len()) }
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

/// Drops the first `n` bytes of a queue of chunks. Returns how many chunks went as a whole.
pub(super) fn advance_queue(chunks: &mut VecDeque<Chunk>, mut n: usize) -> usize {
    let mut dropped = 0;
    while let Some(first) = chunks.front_mut() {
        if first.len() > n {
            first.advance(n);
            break;
        }
        n -= first.len();
        chunks.pop_front();
        dropped += 1;
    }
    dropped
}

/// A block with a single owner that the kernel, or the simulator, fills.
pub struct ReceiveBlock {
    block: Block,
    start: u32,
    len: u32,
}

impl ReceiveBlock {
    /// Where the next byte goes. The pointer stays valid while the block lives, wherever this handle moves.
    pub fn ptr(&mut self) -> *mut u8 {
        // SAFETY: `start` is the headroom, which every block has.
        unsafe { self.block.bytes().add(self.start as usize) }
    }

    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        self.block.room() - self.start as usize
    }

    /// Copies in as much of `bytes` as fits and returns how many bytes that was. The simulator receives this way.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.capacity());
        // SAFETY: `n` bytes fit, and this is the block's only owner.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr(), n) };
        self.len = n as u32;
        n
    }

    /// Records that the first `len` bytes have been written.
    ///
    /// # Safety
    /// The caller has written them, and `len` is at most [`ReceiveBlock::capacity`].
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity());
        self.len = len as u32;
    }

    /// Turns the written bytes into a chunk.
    pub fn freeze(self) -> Chunk {
        Chunk {
            start: self.start,
            end: self.start + self.len,
            block: Some(self.block),
        }
    }
}

/// A block with a single owner that our code writes, for example an encoded head. It moves to a larger block when it is
/// full.
pub struct OutBlock {
    block: Block,
    len: usize,
    pool: Pool,
}

impl OutBlock {
    /// Appends `bytes`, moving to a larger block first if they do not fit.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        if HEADROOM_BYTES + self.len + bytes.len() > self.block.room() {
            self.grow(bytes.len());
        }
        // SAFETY: the bytes fit behind `len`, and this is the block's only owner.
        unsafe {
            let to = self.block.bytes().add(HEADROOM_BYTES + self.len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.len += bytes.len();
    }

    /// Space for `bytes` behind the written ones, moving to a larger block first if there is too little.
    /// [`OutBlock::wrote`] then counts what the caller has written there.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        if HEADROOM_BYTES + self.len + bytes > self.block.room() {
            self.grow(bytes);
        }
        let (at, end) = (HEADROOM_BYTES + self.len, self.block.room());
        // SAFETY: the bytes lie within the block and are initialised since it was allocated. This is the block's only
        // owner, and the slice borrows it.
        unsafe { std::slice::from_raw_parts_mut(self.block.bytes().add(at), end - at) }
    }

    /// Bytes that fit without moving to a larger block.
    pub fn left(&self) -> usize {
        self.block.room() - HEADROOM_BYTES - self.len
    }

    /// Counts the first `n` bytes of the space as written.
    pub fn wrote(&mut self, n: usize) {
        self.len += n.min(self.left());
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Turns the written bytes into a chunk.
    pub fn freeze(self) -> Chunk {
        let start = HEADROOM_BYTES as u32;
        Chunk {
            block: Some(self.block),
            start,
            end: start + self.len as u32,
        }
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let mut larger = self.pool.out((self.len + more).max(self.block.room() * 2));
        // SAFETY: `put` has written the first `len` bytes behind the headroom.
        let written =
            unsafe { std::slice::from_raw_parts(self.block.bytes().add(HEADROOM_BYTES), self.len) };
        larger.put(written);
        std::mem::swap(&mut self.block, &mut larger.block);
    }
}

impl weir_proto_h1::Sink for OutBlock {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        Self::put(self, bytes);
    }
}

// SAFETY: the pointer is into the block, which stays in place when this handle moves. `bytes_total` is the room behind
// the pointer, and monoio calls `set_init` with the bytes written there.
unsafe impl monoio::buf::IoBufMut for ReceiveBlock {
    fn write_ptr(&mut self) -> *mut u8 {
        self.ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        // SAFETY: the caller promises what `set_len` asks for.
        unsafe { self.set_len(pos) }
    }
}

// SAFETY: the pointer is into the block, which stays in place when the chunk moves, and `len` bytes are filled.
unsafe impl monoio::buf::IoBuf for Chunk {
    fn read_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_returns_to_its_pool_with_its_last_view() {
        let pool = Pool::new();
        let chunk = pool.copy(b"hello world");
        let first = chunk.as_ptr();
        let mut tail = chunk.slice(6, 99);
        drop(chunk);
        assert_eq!(&tail[..], b"world");
        assert!(pool.live_bytes() > 0);
        tail.advance(1);
        assert_eq!(&tail.split_to(2)[..], b"or");
        drop(tail);
        assert_eq!(pool.live_bytes(), 0);
        assert_eq!(
            pool.copy(b"again").as_ptr(),
            first,
            "the block used last is used next"
        );
    }

    #[test]
    fn out_grows_over_every_class_and_beyond() {
        let pool = Pool::new();
        let mut out = pool.out(10);
        let mut want = Vec::new();
        for i in 0..40_000_u32 {
            out.put(&i.to_le_bytes());
            want.extend_from_slice(&i.to_le_bytes());
        }
        let larger_than_any_class = vec![7; BLOCK_BYTES[BLOCK_BYTES.len() - 1] + 1];
        out.put(&larger_than_any_class);
        want.extend_from_slice(&larger_than_any_class);
        assert_eq!(&out.freeze()[..], &want[..]);
        assert_eq!(pool.live_bytes(), 0);
    }

    #[test]
    fn blocks_of_a_burst_are_freed_over_time_and_needed_ones_kept() {
        let pool = Pool::new();
        let rush: Vec<Chunk> = (0..100).map(|_| pool.copy(b"x")).collect();
        drop(rush);
        let free = || pool.state.free[0].borrow().len();
        pool.trim();
        assert_eq!(free(), 100, "the burst came after the last call");
        for _ in 0..10 {
            let used = [pool.copy(b"y"), pool.copy(b"z")];
            drop(used);
            pool.trim();
        }
        assert_eq!(free(), 2, "two are needed throughout");
    }

    #[test]
    fn headroom_is_written_only_by_a_lone_view() {
        let pool = Pool::new();
        let mut chunk = pool.copy(b"data");
        let other = chunk.clone();
        assert!(!chunk.prepend(b"4\r\n"));
        assert!(!chunk.append(b"\r\n"));
        drop(other);
        assert!(chunk.prepend(b"4\r\n") && chunk.append(b"\r\n"));
        assert_eq!(&chunk[..], b"4\r\ndata\r\n");
        assert!(
            !chunk.prepend(&[0; HEADROOM_BYTES]),
            "only what is left of the headroom fits"
        );
    }

    #[test]
    fn only_a_lone_view_is_changed_in_place() {
        let pool = Pool::new();
        let mut chunk = pool.copy(b"data");
        let other = chunk.slice(1, 3);
        assert!(chunk.lone_mut().is_none());
        drop(other);
        chunk.advance(1);
        chunk
            .lone_mut()
            .expect("a lone view")
            .copy_from_slice(b"one");
        assert_eq!(&chunk[..], b"one");
        assert!(Chunk::default().lone_mut().is_none());
    }

    #[test]
    fn space_counts_as_written_only_after_wrote() {
        let pool = Pool::new();
        let mut out = pool.out(10);
        out.put(b"head ");
        out.room(BLOCK_BYTES[0])[..4].copy_from_slice(b"body");
        assert_eq!(out.len(), 5);
        out.wrote(4);
        let left = out.left();
        out.wrote(left + 1);
        assert_eq!(out.left(), 0);
        assert_eq!(&out.freeze()[..9], b"head body");
    }

    #[test]
    fn charges_count_until_they_are_dropped() {
        let pool = Pool::new();
        pool.bound(10_000);
        let charge = pool.charge(6_000);
        let chunk = pool.copy(b"x");
        assert_eq!(pool.taken_bytes(), 6_000 + pool.live_bytes());
        assert!(!pool.has_room());
        drop(charge);
        assert!(pool.has_room());
        assert_eq!(pool.taken_bytes(), pool.live_bytes());
        drop(chunk);
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn a_receive_block_takes_what_fits_and_may_outlive_its_pool() {
        let pool = Pool::new();
        let mut filling = pool.filling(1);
        let capacity = filling.capacity();
        assert_eq!(filling.fill(&vec![9; capacity + 5]), capacity);
        drop(pool);
        assert_eq!(filling.freeze().len(), capacity);
    }
}
