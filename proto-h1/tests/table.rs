//! Every case of `tests/cases`, whole, byte by byte and split at each position.

mod support;

use std::collections::HashSet;

use support::*;

#[test]
fn every_case_gives_what_its_file_says_however_it_is_cut() {
    let cases = load();
    let mut failures = Vec::new();
    for case in &cases {
        assert!(
            !case.why.is_empty(),
            "{}: {} has no reason",
            case.file,
            case.name
        );
        let run = |cuts: &[usize]| match case.role.as_str() {
            "server" => run_server(case, cuts),
            "client" => run_client(case, cuts),
            "forward" => run_forward(case, cuts),
            "answer" => run_answer(case, cuts),
            "path" => run_path(case),
            "host" => run_host(case),
            role => panic!("{}: unknown role {role}", case.file),
        };
        let whole = run(&[]);
        if whole != case.out {
            failures.push(format!(
                "{}: {}\n  is:     {}\n  should: {}",
                case.file,
                case.name,
                whole.join("\n          "),
                case.out.join("\n          ")
            ));
            continue;
        }
        // Chunks are forwarded as they come: cuts show in the bytes, not in the meaning.
        let shows_cuts = matches!(case.role.as_str(), "forward" | "answer")
            && case.out.iter().any(|line| line.contains("chunked"));
        if shows_cuts {
            continue;
        }
        let every: Vec<usize> = (1..case.input.len()).collect();
        if run(&every) != whole {
            failures.push(format!(
                "{}: {}: differs byte by byte: {:?}",
                case.file,
                case.name,
                run(&every)
            ));
        }
        for cut in 1..case.input.len() {
            if run(&[cut]) != whole {
                failures.push(format!(
                    "{}: {}: differs when cut at {cut}: {:?}",
                    case.file,
                    case.name,
                    run(&[cut])
                ));
                break;
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

#[test]
fn names_of_cases_are_their_own() {
    let cases = load();
    let names: HashSet<_> = cases.iter().map(|case| (&case.file, &case.name)).collect();
    assert_eq!(names.len(), cases.len());
}
