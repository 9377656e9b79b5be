"""Version 0007: one table of tasks, in place of one of fits and one of trainings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID, NAME = sa.String(36), sa.String(500)
LEARNING = "('train', 'compare', 'promote', 'rollback')"


def upgrade() -> None:
    """Put both into one table. What ran is begun again, but a change of the model, which fails; what had ended with a service failed."""
    _move_tasks()
    _create_tasks()
    columns = (
        "id, kind, resource, options, actor, request_id, created, state, attempts, max_attempts, token, lease_end, "
        "step, count, total, started, finished, result, error"
    )
    op.execute(f"""
        INSERT INTO tasks ({columns})
        SELECT id, kind, resource, options, actor, request_id, created, state, attempts, 3, token, lease_end,
               step, count, total, NULL, finished, result, error FROM work
    """)
    op.execute(f"""
        INSERT INTO tasks ({columns})
        SELECT id, kind, gallery, options, actor, request_id, time,
               CASE state WHEN 'queued' THEN 'waiting' WHEN 'cancelled' THEN 'canceled' WHEN 'ended' THEN 'failed' ELSE state END,
               CASE WHEN started IS NULL THEN 0 ELSE 1 END, CASE WHEN kind IN ('train', 'compare') THEN 3 ELSE 1 END,
               '', CASE WHEN state = 'running' THEN COALESCE(beat, started, time) END,
               '', 0, 0, started, finished, result, message FROM tasks_before
    """)
    for table in ("tasks_before", "work"):
        op.drop_table(table)


def downgrade() -> None:
    """Divide the table again; of a fit the time of its beginning is lost, of the others their progress."""
    _move_tasks()
    _create_former_tasks()
    _create_work()
    op.execute(f"""
        INSERT INTO tasks (id, time, kind, gallery, actor, request_id, options, state, started, finished, beat, owner, message, result)
        SELECT id, created, kind, resource, actor, request_id, options,
               CASE state WHEN 'waiting' THEN 'queued' WHEN 'canceled' THEN 'cancelled' ELSE state END,
               started, finished, CASE WHEN state = 'running' THEN lease_end END, 'null', error, result
        FROM tasks_before WHERE kind IN {LEARNING}
    """)
    columns = (
        "id, kind, resource, options, actor, request_id, created, state, attempts, token, lease_end, step, count, total, "
        "finished, result, error"
    )
    op.execute(f"INSERT INTO work ({columns}) SELECT {columns} FROM tasks_before WHERE kind NOT IN {LEARNING}")
    op.drop_table("tasks_before")


def _move_tasks() -> None:
    op.execute("CREATE TABLE tasks_before AS SELECT * FROM tasks")
    op.drop_table("tasks")


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("resource", NAME, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("lease_end", TIME),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("started", TIME),
        sa.Column("finished", TIME),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )
    op.create_index("tasks_by_state", "tasks", ["state", "kind"])


def _create_former_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", ID, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("gallery", NAME, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started", TIME),
        sa.Column("finished", TIME),
        sa.Column("beat", TIME),
        sa.Column("owner", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
    )
    op.create_index("tasks_by_kind", "tasks", ["kind", "id"])


def _create_work() -> None:
    op.create_table(
        "work",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("resource", NAME, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("lease_end", TIME),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("finished", TIME),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )
    op.create_index("work_by_state", "work", ["state", "kind"])
