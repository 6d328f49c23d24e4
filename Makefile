# The site of docs/, in build/site; no warning passes, and every link within it leads somewhere.
.PHONY: docs
docs:
	rm -rf build/site docs/generated
	sphinx-build -q -W --keep-going -b html docs build/site
	python docs/links.py build/site
