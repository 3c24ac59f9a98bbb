"""Tests of what decides about figures. `cargo test -p weir-benches` runs them."""

import unittest

from measure import layout, pairs, states, versions


def run(round_number, proxy, cpu_us, slow_share=0.0):
    return {"round": round_number, "proxy": proxy, "cpu_us": cpu_us, "slow_share": slow_share}


class Layout(unittest.TestCase):
    def test_the_first_cores_are_the_proxys(self):
        self.assertEqual(layout.choose(1, available={0, 1}), layout.Layout((0,), (1,)))
        chosen = layout.choose(4, available=range(10))
        self.assertEqual((chosen.workers, chosen.load_threads), (4, 3))
        self.assertEqual(chosen.words(), "proxy on cores 0-3, load and endpoint on cores 4-9")
        self.assertEqual(layout.span((0, 2)), "cores 0,2")

    def test_too_few_cores_are_an_error(self):
        for workers, overlap in ((2, False), (3, False), (3, True)):
            with self.assertRaises(layout.TooFewCores):
                layout.choose(workers, overlap, available={0, 1})
        self.assertEqual(layout.choose(2, overlap=True, available={0, 1}), layout.Layout((0, 1), (0, 1)))


class States(unittest.TestCase):
    def test_two_speeds_are_told_apart(self):
        fast, slow = [200.0, 203.0, 198.0, 220.0] * 10, [330.0, 310.0, 345.0] * 5
        self.assertTrue(220 < states.boundary(fast + slow) < 310)
        for one in (fast, slow, [200.0], []):
            self.assertIsNone(states.boundary(one))

    def test_a_run_is_in_the_state_of_nearly_all_its_samples(self):
        samples = ([200.0] * 20, [200.0] * 18 + [320.0] * 2, [200.0] * 10 + [320.0] * 10, [320.0] * 20)
        runs = [{"samples_us": each} for each in samples]
        states.label(runs)
        self.assertEqual([states.state(run) for run in runs], ["fast", "fast", "mixed", "slow"])
        self.assertEqual(states.chosen(runs, "most"), "fast")
        self.assertEqual(states.chosen(runs, "slow"), "slow")

    def test_a_sample_is_taken_on_each_core(self):
        sampler = states.Sampler((0,), 0)
        sampler.start()
        self.assertTrue(sampler.stop())
        self.assertEqual(states.Sampler((0,), 0).stop(), [])


class Pairs(unittest.TestCase):
    def test_only_runs_of_one_round_and_state_are_compared(self):
        runs = [run(0, "nginx", 10.0), run(0, "weir", 8.0), run(1, "weir", 9.0), run(1, "nginx", 15.0, 0.9)]
        runs += [run(2, "nginx", 20.0, 1.0), run(2, "weir", 14.0, 0.95), run(3, "weir", 9.0)]
        self.assertEqual(pairs.ratios(runs, "weir", "nginx"), [0.8, 0.7])
        policy = [{**run(0, "weir", 12.0), "beside": run(0, "weir", 10.0)}]
        policy += [{**run(1, "weir", 12.0), "beside": run(1, "weir", 10.0, 0.5)}]
        self.assertEqual(pairs.ratios_to_case(policy, "weir"), [1.2])

    def test_few_pairs_have_no_interval(self):
        self.assertEqual(pairs.columns([]), ["-", "no pairs"])
        self.assertEqual(pairs.columns([0.8, 0.9]), ["0.85", "too few pairs (2)"])
        self.assertEqual(pairs.columns([0.8] * 5), ["0.80", "0.80 to 0.80 (5)"])
        low, high = pairs.confidence([0.7, 0.8, 0.81, 0.82, 0.8, 0.79, 0.95, 0.8])
        self.assertTrue(0.7 <= low <= 0.8 <= high <= 0.95)

    def test_each_proxy_runs_before_and_behind_the_base(self):
        names = ["nginx", "haproxy", "h2o", "weir"]
        orders = [pairs.order(names, "nginx", number) for number in range(6)]
        for name in names[1:]:
            self.assertEqual(sum(each.index(name) < each.index("nginx") for each in orders), 3)
            beside = sum(abs(each.index(name) - each.index("nginx")) == 1 for each in orders)
            self.assertEqual(beside, 4)
        self.assertEqual([pairs.order(["weir", "h2o"], "nginx", n)[0] for n in range(2)], ["weir", "h2o"])


class Versions(unittest.TestCase):
    def test_the_library_in_use_counts(self):
        said = "nginx version: nginx/1.31.4\nbuilt with OpenSSL 1.1.1 (compatible) (running with AWS-LC 5.12.0)\nTLS SNI"
        self.assertEqual(versions.read("nginx", said), ("1.31.4", "AWS-LC 5.12.0"))
        said = "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.22 25 Aug 2026\n"
        self.assertEqual(versions.read("nginx", said), ("1.22.1", "OpenSSL 3.0.22 25 Aug 2026"))
        said = "HAProxy version 2.6.12 2023\nBuilt with OpenSSL version : A\nRunning on OpenSSL version : OpenSSL 3.0\n"
        self.assertEqual(versions.read("haproxy", said), ("2.6.12", "OpenSSL 3.0"))
        self.assertEqual(versions.read("envoy", "envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL"), ("1.40.0", "BoringSSL"))
        self.assertEqual(versions.read("h2o", "h2o version 2.3\nOpenSSL: OpenSSL 3\nktls: YES"), ("2.3", "OpenSSL 3"))
        self.assertEqual(versions.read("weir", "weir 0.1.0\n"), ("0.1.0", "unknown"))


if __name__ == "__main__":
    unittest.main()
