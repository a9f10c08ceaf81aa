"""A provider's session belongs to one conversation: whoever gets its id knows what was said in it."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0003_parked_turns")]

    operations = [
        migrations.AddConstraint(
            model_name="session",
            constraint=models.UniqueConstraint(fields=["provider_session_id"], name="session_of_one_conversation"),
        ),
    ]
