"""What an executor does that has a host for each rank of a task with `nodes`, under a whole engine: inherit
`RankContract` beside `ExecutorEngineContract`."""

from __future__ import annotations

from trainflow.testing.contract_engine import ContractEngine


class RankContract:
    """The tests."""

    def test_attempt_of_several_ranks_runs_once_they_are_all_there(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_ranks")
        engine.until(lambda: engine.is_running(run))
        assert self.hosts(engine, run) == 3
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]
        engine.until(lambda: self.hosts(engine, run) == 0)

    def test_rank_that_is_lost_is_that_of_the_attempt(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_ranks")
        engine.until(lambda: engine.is_running(run))
        self.lose_rank(engine, run, 1)
        engine.until(lambda: engine.outcomes(run)[0] is not None)
        assert engine.outcomes(run)[0] == "lost"
        assert "rank 1 of 3: " in engine.attempts(run)[0].problem
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.task(run).failures == 0

    def hosts(self, engine: ContractEngine, run: int) -> int:
        """Count the hosts on which the newest attempt of a run has something that runs."""
        raise NotImplementedError

    def lose_rank(self, engine: ContractEngine, run: int, rank: int) -> None:
        """Take away the host of a rank of the newest attempt of a run."""
        raise NotImplementedError
