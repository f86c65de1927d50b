from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0003_rules")]

    operations = [
        migrations.AlterField(
            model_name="trainingrun",
            name="kind",
            field=models.CharField(
                choices=[
                    ("bert", "BERT arm"),
                    ("sft", "LLM arm (SFT)"),
                    ("reward", "reward model"),
                    ("ppo", "LLM arm (PPO)"),
                    ("label_ppo", "label PPO"),
                    ("kto", "LLM arm (KTO)"),
                    ("rules", "Rules"),
                ],
                max_length=16,
            ),
        ),
    ]
