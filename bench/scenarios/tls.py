"""What was measured above, over TLS 1.3, with a certificate made for the purpose (ECDSA, P-256)."""

from dataclasses import replace

from bench.scenarios import echo, fanout, idle

SETUPS = (fanout.QUICK_SETUP._replace(windows=(1, 16, 128)), fanout.Setup(1_000, 1_024, (1, 16, 128)))


def over_tls(scenario, **changes):
    return replace(
        scenario,
        name=f"tls-{scenario.name}",
        title=f"{scenario.title} over TLS",
        needs="tls",
        quick=False,
        about=__doc__,
        **changes,
    )


SCENARIOS = (
    over_tls(fanout.SCENARIO, setups=lambda quick, most: SETUPS, fan_out=False),
    over_tls(echo.SCENARIO),
    over_tls(idle.SCENARIO, setups=lambda quick, most: (2_000,)),
)
