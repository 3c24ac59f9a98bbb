mod buckets;
mod digests;
mod gcra;
mod table;
