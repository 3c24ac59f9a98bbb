//! Every case of `tests/cases`, whole, byte by byte and split at each position.

mod support;

use support::cases::{compare_cut, hold};
use support::driver::run;
use support::load;

#[test]
fn every_case_gives_what_its_file_says_however_it_is_cut() {
    hold(&load(), |case| {
        compare_cut(case, case.wire().len(), |cuts| run(case, cuts))
    });
}
