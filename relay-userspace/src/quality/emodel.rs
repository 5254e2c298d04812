//! The E-model: from impairments to a rating R, and from a rating to a mean opinion score.
//!
//! ITU-T G.107 (06/2015): `R = Ro - Is - Id - Ie,eff + A`, all parameters but codec, loss and delay at their defaults
//! (table 2 there), for which R is 93.2. Of `Id` only what pure delay does (`Idd`, with the listener's echo at its
//! default, which `Ro - Is` below contains) is taken: phones cancel their echo, and the appliance hears none.
//! For wideband codecs ITU-T G.107.1: the same sum on a scale that ends at 129, brought to opinion scores by dividing by
//! 1.29 (its clause 7.6). Scores of the two scales must not be compared: the best narrowband call has 4.41, heard beside
//! wideband it would have less.

/// `Ro - Is` less the listener's echo, all at the defaults of G.107's table 2: the rating of a call without delay, loss and
/// codec.
const NARROWBAND_BEST: f64 = 93.2;
/// The same of G.107.1, clause 7.1.
const WIDEBAND_BEST: f64 = 129.0;
/// From the wideband scale to that of the opinion score (G.107.1).
const WIDEBAND_SCALE: f64 = WIDEBAND_BEST / 100.0;
/// The most that codec and loss can take away (G.107 clause 7.5).
const MOST_EQUIPMENT: f64 = 95.0;
/// Delay that nobody minds, `mT` of G.107 (2015) at its default, in milliseconds.
const MINIMAL_DELAY_MS: f64 = 100.0;
/// The best score (G.107 annex B).
const BEST_SCORE: f64 = 4.5;

/// Which of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// 300 to 3400 Hz: G.107, ratings to 93.2.
    Narrowband,
    /// 50 to 7000 Hz: G.107.1, ratings to 129.
    Wideband,
}

impl Scale {
    /// The name in views.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Narrowband => "narrowband",
            Self::Wideband => "wideband",
        }
    }

    const fn best(self) -> f64 {
        match self {
            Self::Narrowband => NARROWBAND_BEST,
            Self::Wideband => WIDEBAND_BEST,
        }
    }
}

/// What takes away from a rating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairments {
    /// By delay: `Idd`.
    pub delay: f64,
    /// By codec and loss: `Ie,eff`.
    pub equipment: f64,
}

/// `Idd`: what a one-way delay from mouth to ear, in milliseconds, takes away (G.107 equations 7-27 and 7-28, with `sT` at
/// its default of 1).
#[must_use]
pub fn delay_impairment(one_way_ms: f64) -> f64 {
    if one_way_ms.is_nan() || one_way_ms <= MINIMAL_DELAY_MS {
        return 0.0;
    }
    let x = (one_way_ms / MINIMAL_DELAY_MS).log2();
    let root = |value: f64| (1.0 + value.powi(6)).powf(1.0 / 6.0);
    25.0 * (root(x) - 3.0 * root(x / 3.0) + 2.0)
}

/// `Ie,eff`: what a codec with impairment `ie` and robustness `bpl` takes away when `loss_percent` of its packets (0 to
/// 100) are lost, in bursts `burst_ratio` times as long as chance would make them (G.107 equation 7-29).
#[must_use]
pub fn effective_equipment_impairment(ie: f64, bpl: f64, loss_percent: f64, burst_ratio: f64) -> f64 {
    let loss = loss_percent.clamp(0.0, 100.0);
    if loss == 0.0 {
        return ie;
    }
    ie + (MOST_EQUIPMENT - ie) * loss / (loss / burst_ratio.max(1.0) + bpl)
}

/// R: 0 to 93.2, or to 129 on the wideband scale. Without an advantage factor: a desk phone has none.
#[must_use]
pub fn rating(scale: Scale, impairments: Impairments) -> f64 {
    (scale.best() - impairments.delay - impairments.equipment).max(0.0)
}

/// The mean opinion score of a rating, 1.0 to 4.5 (G.107 annex B; for wideband after G.107.1's division by 1.29).
#[must_use]
pub fn mos_of_rating(scale: Scale, rating: f64) -> f64 {
    let r = match scale {
        Scale::Narrowband => rating,
        Scale::Wideband => rating / WIDEBAND_SCALE,
    };
    if r <= 0.0 {
        return 1.0;
    }
    if r >= 100.0 {
        return BEST_SCORE;
    }
    // The polynomial dips below 1 for ratings under 6.5.
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Impairments = Impairments { delay: 0.0, equipment: 0.0 };

    fn near(value: f64, expected: f64, within: f64, what: &str) {
        assert!((value - expected).abs() <= within, "{what}: {value}, not {expected}");
    }

    #[test]
    fn a_call_with_all_defaults_has_the_rating_and_the_score_of_g_107() {
        near(rating(Scale::Narrowband, NONE), 93.2, 0.0, "R");
        near(mos_of_rating(Scale::Narrowband, 93.2), 4.41, 0.005, "MOS");
        near(rating(Scale::Wideband, NONE), 129.0, 0.0, "R of wideband");
        near(mos_of_rating(Scale::Wideband, 129.0), 4.5, 0.0, "MOS of wideband");
    }

    #[test]
    fn ratings_have_the_scores_of_g_107_table_b_1() {
        // Two digits there, and 80 is rounded up.
        for (r, mos) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            near(mos_of_rating(Scale::Narrowband, r), mos, 0.0065, &format!("R = {r}"));
        }
        for (r, mos) in [(-5.0, 1.0), (0.0, 1.0), (3.0, 1.0), (100.0, 4.5), (200.0, 4.5)] {
            near(mos_of_rating(Scale::Narrowband, r), mos, 0.0, &format!("R = {r}"));
        }
    }

    #[test]
    fn delay_costs_nothing_up_to_100_ms_and_then_as_the_formula_says() {
        // Worked out by hand from equation 7-28: X = 1 at 200 ms, X = 2 at 400 ms.
        for (ms, expected) in [(0.0, 0.0), (100.0, 0.0), (150.0, 0.16), (200.0, 3.04), (400.0, 24.07)] {
            near(delay_impairment(ms), expected, 0.03, &format!("{ms} ms"));
        }
    }

    #[test]
    fn loss_costs_as_the_codec_takes_it() {
        // By equation 7-29 with the values of G.113's tables I.2 and I.4.
        for (description, ie, bpl, loss, burst, expected) in [
            ("G.711 with concealment, whole", 0.0, 25.1, 0.0, 1.0, 0.0),
            ("G.711 with concealment, 2 %", 0.0, 25.1, 2.0, 1.0, 7.011),
            ("G.711 without, 2 %", 0.0, 4.3, 2.0, 1.0, 30.159),
            ("G.729A, whole", 11.0, 19.0, 0.0, 1.0, 11.0),
            ("G.729A, 2 %", 11.0, 19.0, 2.0, 1.0, 19.0),
            ("G.729A, 2 % in bursts of twice the length", 11.0, 19.0, 2.0, 2.0, 19.4),
            ("a burst ratio that cannot be counts as chance", 0.0, 25.1, 2.0, 0.0, 7.011),
        ] {
            near(effective_equipment_impairment(ie, bpl, loss, burst), expected, 0.001, description);
        }
    }

    proptest! {
        #[test]
        fn scores_are_between_1_and_4_5_and_never_rise_with_loss_or_delay(
            ie in 0.0f64..50.0, bpl in 4.0f64..40.0, loss in 0.0f64..100.0, more in 0.0f64..50.0,
            burst in 0.5f64..10.0, delay in 0.0f64..2000.0,
        ) {
            for scale in [Scale::Narrowband, Scale::Wideband] {
                let score = |loss: f64, delay: f64| {
                    let equipment = effective_equipment_impairment(ie, bpl, loss, burst);
                    mos_of_rating(scale, rating(scale, Impairments { delay: delay_impairment(delay), equipment }))
                };
                let (first, lossier, later) = (score(loss, delay), score(loss + more, delay), score(loss, delay + more));
                prop_assert!((1.0..=4.5).contains(&first));
                prop_assert!(lossier <= first + 1e-9 && later <= first + 1e-9);
            }
        }
    }
}
