//! Chooses the processors that cores run on.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use rustix::thread::{CpuSet, sched_getaffinity};
use weir_config::Cores;

/// The processors of the cores.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CpuChoice {
    /// For each core, the processor it is pinned to, if any.
    pub(super) cpus: Vec<Option<usize>>,
    /// A remark for the log.
    pub(super) remark: Option<String>,
}

/// Chooses among the processors that the process may use: its affinity mask, and for `auto` the CPU quota of its cgroup.
///
/// # Errors
/// The configuration names a processor that the process may not use.
pub(super) fn choose(cores: &Cores) -> Result<CpuChoice, String> {
    let quota = available_parallelism().map_or(1, NonZeroUsize::get);
    pick(cores, &allowed(), quota)
}

fn pick(cores: &Cores, allowed: &[usize], quota: usize) -> Result<CpuChoice, String> {
    match cores {
        Cores::Auto => {
            let count = quota.clamp(1, allowed.len().max(1));
            let remark = (count < allowed.len()).then(|| {
                let all = allowed.len();
                format!(
                    "cores: {count} of {all} processors, because of the CPU quota of the cgroup"
                )
            });
            Ok(CpuChoice {
                cpus: spread(allowed, count),
                remark,
            })
        }
        Cores::Count(count) => {
            let count = count.get() as usize;
            let remark = (count > allowed.len()).then(|| {
                let all = allowed.len();
                format!("cores: {count} on {all} processors; Weir pins none, and they will slow each other down")
            });
            Ok(CpuChoice {
                cpus: spread(allowed, count),
                remark,
            })
        }
        Cores::Set(named) => {
            let named: Vec<usize> = named.iter().map(|&cpu| cpu as usize).collect();
            let missing: Vec<_> = named
                .iter()
                .filter(|cpu| !allowed.contains(cpu))
                .map(usize::to_string)
                .collect();
            if !missing.is_empty() {
                let allowed: Vec<_> = allowed.iter().map(usize::to_string).collect();
                let (missing, allowed) = (missing.join(", "), allowed.join(", "));
                return Err(format!(
                    "cores: this process may not use processor {missing}; it may use {allowed}"
                ));
            }
            Ok(CpuChoice {
                cpus: named.into_iter().map(Some).collect(),
                remark: None,
            })
        }
    }
}

/// The first `count` processors. If there are fewer, pins no core, because two cores pinned to one processor would wait
/// for each other while another processor is idle.
fn spread(allowed: &[usize], count: usize) -> Vec<Option<usize>> {
    if count > allowed.len() {
        return vec![None; count];
    }
    allowed.iter().take(count).copied().map(Some).collect()
}

fn allowed() -> Vec<usize> {
    let mask = sched_getaffinity(None);
    mask.map_or_else(
        |_| Vec::new(),
        |mask| {
            (0..CpuSet::MAX_CPU)
                .filter(|&cpu| mask.is_set(cpu))
                .collect()
        },
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn auto_respects_affinity_and_quota() {
        let choice = pick(&Cores::Auto, &[2, 3, 5], 8).unwrap();
        assert_eq!(
            choice,
            CpuChoice {
                cpus: vec![Some(2), Some(3), Some(5)],
                remark: None
            }
        );
        let choice = pick(&Cores::Auto, &[2, 3, 5], 2).unwrap();
        assert_eq!(choice.cpus, [Some(2), Some(3)]);
        assert!(choice.remark.unwrap().contains("2 of 3"));
    }

    #[test]
    fn a_number_takes_the_first_processors_and_a_set_names_them() {
        let count = |n| Cores::Count(NonZeroU32::new(n).unwrap());
        assert_eq!(pick(&count(1), &[4, 7], 2).unwrap().cpus, [Some(4)]);
        assert_eq!(
            pick(&count(3), &[4, 7], 2).unwrap().cpus,
            [None, None, None]
        );
        assert_eq!(
            pick(&Cores::Set(vec![7]), &[4, 7], 1).unwrap().cpus,
            [Some(7)]
        );
        let error = pick(&Cores::Set(vec![4, 5]), &[4, 7], 2).unwrap_err();
        assert_eq!(
            error,
            "cores: this process may not use processor 5; it may use 4, 7"
        );
    }

    #[test]
    fn this_process_has_processors() {
        assert!(!allowed().is_empty());
        assert!(!choose(&Cores::Auto).unwrap().cpus.is_empty());
    }
}
