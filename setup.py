"pyproject.toml says everything; this adds the job notebooks and their schedule to the wheel, as algo_kit/papermill_jobs."
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

class with_jobs(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            for p in [*Path("papermill_jobs").glob("*.ipynb"), *Path("papermill_jobs").glob("*.yaml")]:
                to = Path(self.build_lib)/"algo_kit"/p
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(p, to)

setup(cmdclass=dict(build_py=with_jobs))
