//! Every case of `tests/cases`, whole, byte by byte and split at each position.

mod support;

use std::collections::HashSet;

use support::driver::run;
use support::load;

/// Inputs beyond this are cut at some places only.
const CUT_EVERYWHERE_BYTES_MAX: usize = 700;

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
        let whole = run(case, &[]);
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
        let len = case.wire().len();
        let every: Vec<usize> = (1..len).collect();
        if run(case, &every) != whole {
            failures.push(format!(
                "{}: {}: differs byte by byte: {:?}",
                case.file,
                case.name,
                run(case, &every)
            ));
        }
        let step = 1 + len / CUT_EVERYWHERE_BYTES_MAX;
        if let Some(cut) = (1..len)
            .step_by(step)
            .find(|&cut| run(case, &[cut]) != whole)
        {
            failures.push(format!(
                "{}: {}: differs when cut at {cut}: {:?}",
                case.file,
                case.name,
                run(case, &[cut])
            ));
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
