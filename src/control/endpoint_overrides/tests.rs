use super::Lifetime::{Kept, UntilReload};
use super::*;

const FILE: &str = r#"
[listen."127.0.0.1:8080"]
[upstream.api]
servers = ["10.0.0.1:80", { address = "10.0.0.2:80", weight = 3 }]
[upstream.web]
servers = ["10.0.1.1:80"]
[[route]]
match = "/*"
to = "api"
[[route]]
match = "/web/*"
to = "web"
"#;

fn config(text: &str) -> (Config, EndpointSets) {
    let (config, _) = weir_config::parse("test.toml", text).expect("a valid file");
    let sets = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).expect("endpoints");
    (config, sets)
}

/// The endpoints of `api` as `NAME WEIGHT STATE`.
fn shown(overrides: &EndpointOverrides, config: &Config, base: &EndpointSets) -> Vec<String> {
    let sets = overrides.apply(config, base);
    let set = sets.iter().next().expect("the first upstream");
    let show = |spec: &EndpointSpec| format!("{} {} {}", spec.name, spec.weight, spec.state.name());
    set.endpoints.iter().map(show).collect()
}

struct Changed {
    config: Config,
    base: EndpointSets,
    overrides: EndpointOverrides,
}

impl Changed {
    fn new() -> Self {
        let (config, base) = config(FILE);
        Self {
            config,
            base,
            overrides: EndpointOverrides::default(),
        }
    }

    fn api(&self) -> Arc<EndpointSet> {
        self.base.iter().next().expect("the first upstream").clone()
    }

    fn add(&mut self, endpoint: &str, weight: Option<u32>, lifetime: Lifetime) {
        let base = self.api();
        self.overrides
            .add(&base, ("api", endpoint), weight, lifetime);
    }

    fn remove(&mut self, endpoint: &str, lifetime: Lifetime) {
        let base = self.api();
        self.overrides.remove(&base, ("api", endpoint), lifetime);
    }

    fn state(&mut self, endpoint: &str, state: EndpointState, lifetime: Lifetime) {
        let base = self.api();
        self.overrides
            .patch(&base, ("api", endpoint), (Some(state), None), lifetime);
    }

    fn weight(&mut self, endpoint: &str, weight: u32, lifetime: Lifetime) {
        let base = self.api();
        self.overrides
            .patch(&base, ("api", endpoint), (None, Some(weight)), lifetime);
    }

    fn reload(&mut self) {
        self.overrides = self.overrides.after_reload(&self.config, &self.base);
    }

    fn shown(&self) -> Vec<String> {
        shown(&self.overrides, &self.config, &self.base)
    }
}

const UNCHANGED: [&str; 2] = ["10.0.0.1:80 1 ready", "10.0.0.2:80 3 ready"];

#[test]
fn changes_apply_on_top_of_the_file() {
    let mut it = Changed::new();
    assert_eq!(it.shown(), UNCHANGED);
    it.state("10.0.0.1:80", EndpointState::Drain, UntilReload);
    it.weight("10.0.0.2:80", 0, UntilReload);
    it.add("10.0.0.3:80", Some(7), UntilReload);
    it.add("unix:/run/app.sock", None, UntilReload);
    assert_eq!(
        it.shown(),
        [
            "10.0.0.1:80 1 drain",
            "10.0.0.2:80 0 ready",
            "10.0.0.3:80 7 ready",
            "unix:/run/app.sock 1 ready"
        ]
    );
    it.remove("10.0.0.1:80", UntilReload);
    it.remove("10.0.0.3:80", UntilReload);
    assert_eq!(
        it.shown(),
        ["10.0.0.2:80 0 ready", "unix:/run/app.sock 1 ready"]
    );
    // Back as the file has it, though it was drained when it was removed.
    it.add("10.0.0.1:80", None, UntilReload);
    assert_eq!(it.shown()[0], "10.0.0.1:80 1 ready");
}

#[test]
fn a_reload_drops_what_is_not_kept() {
    let mut it = Changed::new();
    it.add("10.0.0.3:80", None, Kept);
    it.state("10.0.0.3:80", EndpointState::Maintenance, UntilReload);
    it.state("10.0.0.1:80", EndpointState::Drain, Kept);
    it.weight("10.0.0.1:80", 9, UntilReload);
    it.remove("10.0.0.2:80", UntilReload);
    assert_eq!(
        it.shown(),
        ["10.0.0.1:80 9 drain", "10.0.0.3:80 1 maintenance"]
    );
    it.reload();
    assert_eq!(
        it.shown(),
        [
            "10.0.0.1:80 1 drain",
            "10.0.0.2:80 3 ready",
            "10.0.0.3:80 1 ready"
        ]
    );
    // A removal that is not kept hides an addition that is, until the reload.
    it.remove("10.0.0.3:80", UntilReload);
    assert_eq!(it.shown().len(), 2);
    it.reload();
    assert_eq!(it.shown().len(), 3);
    it.remove("10.0.0.3:80", Kept);
    it.reload();
    assert_eq!(it.shown().len(), 2);
}

#[test]
fn a_change_that_is_taken_back_leaves_nothing() {
    let mut it = Changed::new();
    it.state("10.0.0.1:80", EndpointState::Drain, Kept);
    it.state("10.0.0.1:80", EndpointState::Ready, Kept);
    it.weight("10.0.0.2:80", 5, UntilReload);
    it.weight("10.0.0.2:80", 3, UntilReload);
    it.add("10.0.0.3:80", Some(4), UntilReload);
    it.state("10.0.0.3:80", EndpointState::Drain, UntilReload);
    it.remove("10.0.0.3:80", UntilReload);
    it.remove("10.0.0.1:80", Kept);
    it.add("10.0.0.1:80", None, Kept);
    assert_eq!(it.overrides, EndpointOverrides::default());
    assert_eq!(it.shown(), UNCHANGED);
}

#[test]
fn sets_without_changes_stay_the_same_and_upstreams_that_go_take_theirs_along() {
    let mut it = Changed::new();
    it.add("10.0.0.3:80", None, Kept);
    let sets = it.overrides.apply(&it.config, &it.base);
    let same: Vec<_> = sets
        .iter()
        .zip(it.base.iter())
        .map(|(new, old)| Arc::ptr_eq(new, old))
        .collect();
    assert_eq!(same, [false, true]);
    assert_eq!(it.overrides.count(), 1);
    let (new, sets) = config(&FILE.replace("api", "other"));
    assert_eq!(it.overrides.after_reload(&new, &sets).count(), 0);
    // The file has it by now.
    let (new, sets) = config(&FILE.replace("\"10.0.0.1:80\"", "\"10.0.0.1:80\", \"10.0.0.3:80\""));
    assert_eq!(it.overrides.after_reload(&new, &sets).count(), 0);
}

#[test]
fn changes_are_listed_with_how_long_they_last() {
    let mut it = Changed::new();
    it.add("10.0.0.3:80", Some(2), Kept);
    it.state("10.0.0.3:80", EndpointState::Drain, UntilReload);
    it.remove("10.0.0.2:80", UntilReload);
    let listed = serde_json::to_string(&it.overrides.list()).expect("JSON");
    assert_eq!(
        listed,
        r#"[{"upstream":"api","address":"10.0.0.2:80","endpoint":"removed","persist":false},"#
            .to_owned()
            + r#"{"upstream":"api","address":"10.0.0.3:80","state":"drain","persist":false},"#
            + r#"{"upstream":"api","address":"10.0.0.3:80","endpoint":"added","weight":2,"persist":true}]"#
    );
    // An upgrade hands changes over as JSON.
    let text = serde_json::to_string(&it.overrides).expect("JSON");
    let read: EndpointOverrides = serde_json::from_str(&text).expect("the same");
    assert_eq!(read, it.overrides);
}

#[test]
fn only_addresses_can_be_added() {
    assert_eq!(
        addable("http://10.0.0.1:80").map(|it| it.to_string()),
        Ok("10.0.0.1:80".to_owned())
    );
    assert!(addable("unix:/run/app.sock").is_ok() && addable("[2001:db8::1]:80").is_ok());
    for wrong in [
        "app.internal:80",
        "10.0.0.1",
        "10.0.0.1:0x",
        "",
        "ftp://10.0.0.1:21",
    ] {
        assert!(addable(wrong).is_err(), "{wrong}");
    }
}

/// After any changes and reloads, the endpoints are those of a model that keeps a list of all that was asked.
#[test]
fn layers_agree_with_a_model() {
    let mut random = fastrand::Rng::with_seed(7);
    let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    for _ in 0..500 {
        let mut it = Changed::new();
        let model_of_file = || {
            BTreeMap::from([
                (names[0], (1, EndpointState::Ready)),
                (names[1], (3, EndpointState::Ready)),
            ])
        };
        // What a reload leaves, and what runs.
        let (mut kept, mut now) = (model_of_file(), model_of_file());
        for _ in 0..random.usize(1..12) {
            let name = names[random.usize(..names.len())];
            match random.u8(..8) {
                0 => {
                    it.reload();
                    now = kept.clone();
                }
                kind @ (1 | 2) if now.contains_key(name) => {
                    let lifetime = [UntilReload, Kept][usize::from(kind - 1)];
                    it.remove(name, lifetime);
                    now.remove(name);
                    if lifetime == Kept {
                        kept.remove(name);
                    }
                }
                3 if !now.contains_key(name) => {
                    let weight = random.u32(1..4);
                    it.add(name, Some(weight), UntilReload);
                    now.insert(name, (weight, EndpointState::Ready));
                }
                4 if !now.contains_key(name) => {
                    let weight = random.u32(1..4);
                    it.add(name, Some(weight), Kept);
                    now.insert(name, (weight, EndpointState::Ready));
                    kept.insert(name, (weight, EndpointState::Ready));
                }
                5 if now.contains_key(name) => {
                    it.state(name, EndpointState::Drain, UntilReload);
                    if let Some(spec) = now.get_mut(name) {
                        spec.1 = EndpointState::Drain;
                    }
                }
                6 if kept.contains_key(name) && now.contains_key(name) => {
                    it.weight(name, 2, Kept);
                    for model in [&mut kept, &mut now] {
                        if let Some(spec) = model.get_mut(name) {
                            spec.0 = 2;
                        }
                    }
                }
                _ => {}
            }
            let mut shown = it.shown();
            shown.sort();
            let wanted: Vec<_> = now
                .iter()
                .map(|(name, (weight, state))| format!("{name} {weight} {}", state.name()))
                .collect();
            assert_eq!(shown, wanted);
        }
    }
}
