"""How many turns a session had had, instead of whether it had any: the number tells whether a process has read the last one.

And two moments that part our own time from the provider's: when its process waited for the prompt, and when it had said its last word.
"""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("execution", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="execution",
            name="session_turns",
            field=models.PositiveIntegerField(default=0, help_text="turns the session had had before this one"),
        ),
        migrations.RunSQL(
            "UPDATE execution_execution SET session_turns = 1 WHERE resume",
            "UPDATE execution_execution SET resume = TRUE WHERE session_turns > 0",
        ),
        migrations.RemoveField(model_name="execution", name="resume"),
        migrations.AddField("execution", "ready_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("execution", "provider_ended_at", models.DateTimeField(blank=True, null=True)),
    ]
