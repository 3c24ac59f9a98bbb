//! Runs every case of `tests/cases` whole, byte by byte, and split at each position.

mod support;

use support::cases::{check_all, compare, compare_cut};
use support::*;

#[test]
fn every_case_gives_what_its_file_says_however_it_is_cut() {
    check_all(&load(), |case| {
        let run = |cuts: &[usize]| match case.role.as_str() {
            "server" => run_server(case, cuts),
            "client" => run_client(case, cuts),
            "forward" => run_forward(case, cuts),
            "answer" => run_answer(case, cuts),
            "path" => run_path(case),
            "host" => run_host(case),
            role => panic!("{}: unknown role {role}", case.file),
        };
        // Chunks are forwarded as they arrive, so cuts change the bytes but not the meaning.
        let shows_cuts = matches!(case.role.as_str(), "forward" | "answer")
            && case.out.iter().any(|line| line.contains("chunked"));
        if shows_cuts {
            compare(case, &run(&[]))
        } else {
            compare_cut(case, case.input.len(), run)
        }
    });
}
