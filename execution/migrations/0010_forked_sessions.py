from django.db import migrations, models


class Migration(migrations.Migration):
    """A column with a database default: workers of the release before write rows without it."""

    dependencies = [("execution", "0009_offers")]

    operations = [
        migrations.AddField(
            "execution",
            "fork_of",
            models.CharField(
                blank=True, db_default="", help_text="the session whose memory a new one begins with", max_length=80
            ),
        ),
    ]
