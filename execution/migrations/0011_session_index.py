from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Beside running workers, who write this table all the time: hence not in a transaction."""

    atomic = False
    dependencies = [("execution", "0010_forked_sessions")]

    operations = [
        AddIndexConcurrently("execution", models.Index(fields=["session_id"], name="execution_session")),
    ]
