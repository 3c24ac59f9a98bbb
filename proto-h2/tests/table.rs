//! Runs every case of `tests/cases` whole, byte by byte, and split at each position.

mod support;

use support::cases::{check_all, compare_cut};
use support::driver::run;
use support::load;

#[test]
fn every_case_gives_what_its_file_says_however_it_is_cut() {
    check_all(&load(), |case| {
        compare_cut(case, case.wire().len(), |cuts| run(case, cuts))
    });
}
